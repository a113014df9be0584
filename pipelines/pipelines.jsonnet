// Both pipelines of an example: the one source of the specs in the folders beside it (`make pipelines` writes them), and a template
// of its own:
//
//   pachctl create pipeline --jsonnet pipelines/pipelines.jsonnet \
//     --arg example=dogs-and-cats --arg target=aws --arg registry=$REGISTRY_URI --arg gitUrl=… --arg bucket=$MODEL_ASSETS_BUCKET_NAME

local examples = {
  'dogs-and-cats': { deployment: 'dog-cat', what: 'dogs-and-cats model on every commit of pictures', incremental: true },
  'customer-churn': { deployment: 'churn', what: 'customer-churn model on every commit of tables', incremental: false },
  'question-answering': { deployment: 'qa', what: 'question-answering model on every commit of texts', incremental: false },
};
local clouds = ['aws', 'gcp'];

function(
  example,  // a folder of experiments/
  target='local',  // local, on-prem, aws, gcp
  registry='',  // HOST/PATH of the images; without one they run as plain processes under `pdk up`
  tag='0.1.0',
  gitUrl='https://github.com/OWNER/pdk.git',  // where the experiment's code is
  gitRef='main',
  config='const.yaml',  // the experiment's configuration, in its folder
  bucket='',  // of the model store on aws and gcp
  requests='',  // resources of the predictor, as cpu=2,memory=8Gi; without them those of the ClusterServingRuntime count
  limits='',
  deployFlags='',  // further ones of deploy.py, as --timeout 900
  gpus='0',  // that a job of the train pipeline asks for itself; experiments ask for theirs in their own config
  // where Determined keeps checkpoints on every node, if it does
  sharedFolder=if target == 'on-prem' then '/mnt/efs/shared_fs/determined' else '',
  gitSecret='',  // a secret with the keys git_ssh_key and git_known_hosts, for a private repository
  serviceAccount='pach-deploy',  // of the predictor: it reads the model store
  storeSecret='',  // a secret with the model store's credentials, where pods have no identity of their own: AWS_ACCESS_KEY_ID, … or key.json
  storeEndpoint=''  // of another server that speaks S3 (aws) or GCS (gcp)
)
  local known = examples[example];
  local cloud = std.member(clouds, target);
  local image(name) = (if registry != '' then registry + '/' else '') + 'pdk/' + name + ':' + tag;
  local secret(name, pairs) = [{ name: name, key: pair[0], env_var: pair[1] } for pair in pairs];
  local keys = ['det_master', 'det_user', 'det_password', 'pac_token', 'pachd_lb_service_host', 'pachd_lb_service_port'];
  local engines = [[key, std.asciiUpper(key)] for key in keys];
  local patches = [  // Determined's own client reads checkpoints of a shared folder from the path that the config names
    { op: 'add', path: '/volumes/-', value: { name: 'checkpoints', hostPath: { path: sharedFolder, type: 'Directory' } } },
    { op: 'add', path: '/containers/0/volumeMounts/-', value: { name: 'checkpoints', mountPath: sharedFolder, readOnly: true } },
    { op: 'add', path: '/containers/0/securityContext', value: { runAsUser: 0 } },  // the folder belongs to root
  ];
  local words(list) = std.join(' ', [word for word in list if word != '']);
  local given(flag, value) = if value == '' then '' else flag + ' ' + value;

  local train = {
    pipeline: { name: example + '-model' },
    description: 'Trains the ' + known.what + ' and registers it.',
    input: { pfs: { repo: example + '-data', branch: 'master', glob: '/' } },
    transform: {
      image: image('train'),
      cmd: ['/bin/sh'],
      stdin: [words([
        'python train.py --git-url "$GIT_URL" --git-ref "$GIT_REF" --sub-dir experiments/' + example,
        '--config ' + config,
        '--repo ' + example + '-data --model ' + example + ' --project pdk-' + example,
        if known.incremental then '--incremental' else '',
      ])],
      env: { GIT_URL: gitUrl, GIT_REF: gitRef },
      secrets: secret('pipeline-secret', engines)
               + (if gitSecret != '' then secret(gitSecret, [['git_ssh_key', 'GIT_SSH_KEY'], ['git_known_hosts', 'GIT_KNOWN_HOSTS']]) else []),
    },
    [if gpus != '0' then 'resource_limits']: { gpu: { type: 'nvidia.com/gpu', number: std.parseInt(gpus) } },
    [if sharedFolder != '' then 'pod_patch']: std.manifestJsonMinified(patches),
    datum_tries: 1,
    autoscaling: true,
  };

  local key = '/pfs-secrets/model-store';
  local deploy = {
    pipeline: { name: example + '-deploy' },
    description: 'Archives every new version of the ' + example + ' model and serves it.',
    input: { pfs: { repo: example + '-model', branch: 'master', glob: '/' } },
    transform: {
      image: image('deploy'),
      cmd: ['/bin/sh'],
      stdin: [words([
        'python deploy.py --deployment-name ' + known.deployment,
        if cloud then '--cloud-model-host ' + target + ' --cloud-model-bucket ' + bucket else '',
        if target == 'gcp' && storeSecret != '' && storeEndpoint == '' then '--google-application-credentials ' + key + '/key.json' else '',
        given('--service-account-name', serviceAccount),
        given('--resource-requests', requests),
        given('--resource-limits', limits),
        deployFlags,
      ])],
      [if storeEndpoint != '' then 'env']: { [if target == 'aws' then 'AWS_ENDPOINT_URL' else 'STORAGE_EMULATOR_HOST']: storeEndpoint },
      secrets: secret('pipeline-secret', engines + [['kserve_namespace', 'KSERVE_NAMESPACE']])
               + (if storeSecret == '' then []
                  else if target == 'gcp' then [{ name: storeSecret, mount_path: key }]
                  else secret(storeSecret, [[name, name] for name in ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY']])),
    },
    datum_tries: 1,
    autoscaling: true,
  };

  assert !cloud || bucket != '' : 'target ' + target + ' needs a bucket';
  assert std.member(['local', 'on-prem'] + clouds, target) : 'target is ' + target + ': local, on-prem, aws or gcp is expected';
  [train, deploy]
