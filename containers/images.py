"""Build PDK's images, and push them: ``python containers/images.py build|push [NAME…]`` (standard library only).

The builder is docker, podman or buildah, the first that is found; ``--builder`` names another one, also several words: it is called as
``BUILDER NAME:TAG CONTEXT -f FILE …`` where it is none of the three. An image is named ``[REGISTRY/]pdk/NAME:TAG``; the tag is the
project's version unless ``--tag`` says otherwise.
"""

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("train", "deploy", "serve", "experiment")
BUILDERS = ("docker", "podman", "buildah")
ECR = re.compile(r"\d{12}\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
PLATFORM = "linux/amd64"  # of cluster nodes; a laptop's own may be another


def stop(message: str) -> None:
    """End with a message."""
    sys.exit(f"images: {message}")


def run(*words: str, stdin: str | None = None) -> None:
    """Run a program, showing it; its failure ends this one."""
    print("$", shlex.join(words), flush=True)
    try:
        code = subprocess.run(words, input=stdin, text=True, check=False, cwd=ROOT).returncode
    except FileNotFoundError:
        stop(f"{words[0]} is not installed")
    if code:
        stop(f"{words[0]} ended with code {code}; its own words are above")


def version() -> str:
    """The project's version, which is the images' tag."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def builder(chosen: str | None) -> list[str]:
    """The words that the build program is called with."""
    if chosen:
        return shlex.split(chosen)
    found = next((name for name in BUILDERS if shutil.which(name)), None)
    if found is None:
        stop(f"none of {', '.join(BUILDERS)} is installed; install one, or name a builder with --builder")
    assert found is not None
    return [found]


def image(name: str, options: argparse.Namespace) -> str:
    """The full name of an image."""
    registry = f"{options.registry.rstrip('/')}/" if options.registry else ""
    return f"{registry}pdk/{name}:{options.tag}"


def build(name: str, options: argparse.Namespace) -> None:
    """Build one image."""
    words, file = builder(options.builder), f"containers/{name}/Dockerfile"
    arguments = [word for pair in options.build_arg for word in ("--build-arg", pair)]
    if words[-1] in BUILDERS:
        run(*words, "build", "--platform", options.platform, *arguments, "-t", image(name, options), "-f", file, ".")
    else:
        run(*words, image(name, options), ".", "-f", file, *arguments)


def log_in(words: Sequence[str], registry: str, region: str) -> None:
    """Log in to ECR; the password goes from one program's output to the other's input and is in no process list."""
    command = ["aws", "ecr", "get-login-password", "--region", region]
    try:
        password = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        stop(f"no password for {registry}: {error}; is the aws command installed and logged in?")
    run(*words, "login", "--username", "AWS", "--password-stdin", registry, stdin=password)


def ensure_repository(repository: str, region: str) -> None:
    """Create an ECR repository where it is missing: ECR does not make one by a push."""
    aws = ("aws", "ecr", "--region", region, "--output", "json")
    found = subprocess.run([*aws, "describe-repositories", "--repository-names", repository], capture_output=True, text=True, check=False)
    if found.returncode == 0 and json.loads(found.stdout)["repositories"]:
        return
    if "RepositoryNotFoundException" not in found.stderr:
        stop(f"ECR does not say whether the repository {repository} exists: {found.stderr.strip()}")
    run(*aws, "create-repository", "--repository-name", repository, "--image-tag-mutability", "IMMUTABLE")


def push(names: Sequence[str], options: argparse.Namespace) -> None:
    """Push images that were built."""
    words, (host, _, path) = builder(options.builder), options.registry.rstrip("/").partition("/")
    match = ECR.fullmatch(host)
    if match:
        log_in(words, host, match[1])
    for name in names:
        if match:
            ensure_repository("/".join(filter(None, (path, "pdk", name))), match[1])
        run(*words, "push", image(name, options))


def main() -> None:
    """Build, and push where that is asked for."""
    parser = argparse.ArgumentParser(prog="images.py", description="Build and push PDK's images.")
    parser.add_argument("action", choices=("build", "push"), help="push builds first")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--registry", default="", help="HOST/PATH before the images' names")
    parser.add_argument("--tag", default=version(), help="default: the project's version, %(default)s")
    parser.add_argument("--platform", default=PLATFORM, help="default: %(default)s, what cluster nodes usually are")
    parser.add_argument("--builder", help="docker, podman, buildah, or the words of another program")
    parser.add_argument("--build-arg", action="append", default=[], metavar="KEY=VALUE", help="BASE_IMAGE, PDK_TORCH_INDEX")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        stop(f"there is no image {min(unknown)!r}; known are {', '.join(NAMES)}")
    if options.action == "push" and not options.registry:
        stop("push needs a registry: make push REGISTRY=HOST/PATH")
    names = options.names or NAMES
    for name in names:
        build(name, options)
    if options.action == "push":
        push(names, options)


if __name__ == "__main__":
    main()
