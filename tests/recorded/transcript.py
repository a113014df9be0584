"""What an engine answered, call by call, with everything that differs between two runs masked."""

import json
import re
import subprocess

import betterproto
import grpc

ID = re.compile(r"\b[0-9a-f]{12}4[0-9a-f]{19}\b")
MASKED_KEYS = {
    "started", "finishing", "finished", "created", "updated", "created_at", "updated_at", "committed", "compacting_time", "validating_time",
    "download_time", "process_time", "upload_time", "salt", "created_by", "workers_requested", "workers_available", "image_id",
    "host", "worker_id", "service", "effective_spec_json", "user_spec_json", "auth_token", "metadata", "creation_timestamp",
    "workers_started_at", "stats", "worker_status", "ts",
}  # fmt: skip


class Transcript:
    """Calls and answers of one case.

    Args:
        names: names of this run (a project's, an image's) and what stands for them.
    """

    def __init__(self, names):
        self.names, self.steps, self._ids = names, [], {}

    def mask(self, value, key=""):
        """A value with times, IDs and names of this run replaced; empty fields left out."""
        if key in MASKED_KEYS:
            return "…"
        if isinstance(value, dict):
            return {name: masked for name, part in sorted(value.items()) if (masked := self.mask(part, name)) not in (None, "", [], {}, 0)}
        if isinstance(value, list):
            return [self.mask(part) for part in value]
        if isinstance(value, str):
            for name, stands in self.names.items():
                value = value.replace(name, stands)
            return ID.sub(lambda match: self._ids.setdefault(match[0], f"<id {len(self._ids) + 1}>"), value)
        return value

    def call(self, title, work, *, show=None, order=None, differs=""):
        """Do a call and note what came: its answer, or the code of its error.

        Args:
            show: makes of the answer what is noted.
            order: a key to sort a list by, where the order is not promised.
            differs: why the local server's answer is another one; then only the reason is noted.
        """
        try:
            answer = work()
            plain = show(answer) if show else as_plain(answer)
            if order and isinstance(plain, list):
                plain = sorted(plain, key=order)
            noted = {"answer": self.mask(plain)}
        except grpc.RpcError as error:
            answer, noted = None, {"error": error.code().name}
        self.steps.append({"call": title, "differs": differs} if differs else {"call": title, **noted})
        return answer

    def fails(self, title, work, code, means, *, differs=""):
        """Do a call that both engines refuse; `means` must stand in the text of both, `code` is noted."""
        try:
            as_plain(work())
        except grpc.RpcError as error:
            found, text = error.code().name, error.details()
        else:
            found, text = "OK", ""
        assert re.search(means, text, re.IGNORECASE), f"{title}: {found}: {text}"
        self.steps.append({"call": title, "differs": differs} if differs else {"call": title, "error": found, "means": means})
        assert differs or found == code, f"{title}: {found} instead of {code}: {text}"

    def pachctl(self, run, words, *, stdin=None, means="", show=None):
        """Run pachctl and note its exit code and what it printed (or, with `means`, that this stands in it)."""
        done = run(words, stdin)
        printed = done.stdout + done.stderr
        if means:
            assert re.search(means, printed, re.IGNORECASE), f"pachctl {' '.join(words)}: {printed}"
            noted = {"exit": done.returncode, "means": means}
        else:
            noted = {"exit": done.returncode, "printed": self.mask(show(done.stdout) if show else plain_text(done.stdout))}
            assert done.returncode == 0, f"pachctl {' '.join(words)}: {printed}"
        self.steps.append({"call": self.mask("pachctl " + " ".join(words)), **noted})
        return done.stdout


def plain_text(text):
    """Output without ages and column widths."""
    text = re.sub(
        r"\b(\d+ (seconds?|minutes?|hours?) ago|Less than a second ago|About (a|an) \w+ ago|\d+ (seconds?|minutes?))\b", "AGE", text
    )
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip()]


def as_plain(answer):
    """A message, or a stream of them, as JSON."""
    if isinstance(answer, betterproto.Message):
        return json.loads(answer.to_json(casing=betterproto.Casing.SNAKE))
    if isinstance(answer, bytes):
        return answer.decode("latin-1")
    if answer is None or isinstance(answer, str | int | bool | dict):
        return answer
    return [as_plain(part) for part in answer]


def run_pachctl(program, env, words, stdin):
    """Run pachctl; the finished process."""
    return subprocess.run([program, *words], env=env, input=stdin or "", capture_output=True, text=True, timeout=180, check=False)
