//! Tests of moto's jobs, which are processes or containers, as far as other tests rely on their behavior. The calls are made
//! by AWS's own client for Python.

use std::path::{Path, PathBuf};
use std::process::Command;

use cloudknot_tests::counterparts::{Docker, run};
use cloudknot_tests::moto::Moto;
use cloudknot_tests::recorder::Recorder;
use serde_json::json;

use crate::moto::{QUEUE, output, run_script, spawn, start};

/// Jobs without containers get the states that Batch reports, also many at once.
#[test]
fn jobs_can_succeed_at_once() {
    let Some((moto, recorder)) = start() else { return };
    moto.config(&json!({ "batch": { "use_docker": false } }));
    let script = format!(
        "{QUEUE}
job = look(submit(arrayProperties={{'size': 10_000}}))
check(job['status'], 'SUCCEEDED')
check(job['arrayProperties']['statusSummary']['SUCCEEDED'], 10_000)
for size in [1, 10_001]:
    try:
        submit(arrayProperties={{'size': size}})
        print('taken', size)
    except ClientError as error:
        check(error.response['Error']['Code'], 'ClientException')
try:
    batch.describe_jobs(jobs=[job['jobId']] * 101)
    print('taken 101')
except ClientError as error:
    check(error.response['Error']['Code'], 'ClientException')
"
    );
    assert_eq!(run_script(&recorder, &script), "");
    recorder.validate();
}

/// One job shows its intermediate states, and one does not. Both fail, because no engine is available.
#[test]
fn jobs_can_be_slow() {
    let Some(moto) = Moto::start() else { return };
    let script = format!(
        "{QUEUE}
job, states, start = submit(), [], time.monotonic()
while states[-1:] != ['FAILED']:
    state = look(job)['status']
    states += [state] if state not in states else []
    time.sleep(0.05)
print(states if time.monotonic() - start > 3 else states[-1])
"
    );
    moto.slow_jobs(1);
    assert_eq!(output(spawn(&moto.url(), &script, &[])), "['PENDING', 'RUNNABLE', 'STARTING', 'FAILED']\n");
    moto.reset();
    assert_eq!(output(spawn(&moto.url(), &script, &[])), "FAILED\n");
}

/// Script that checks each of the points at the top of server.py, with the registered job definition.
const POINTS: &str = "
logs = client('logs')
def log(job):
    stream = job['container']['logStreamName']
    events = logs.get_log_events(logGroupName='/aws/batch/job', logStreamName=stream)['events']
    return [event['message'] for event in events]
def about(job):
    container = job['container']
    return container.get('exitCode'), container.get('reason', '').partition(':')[0], len(job['attempts'])
def rule(action, **when):
    return {'action': action, **when}
def ends_as(instruction, rules, wanted):
    strategy = {'attempts': 3, **({'evaluateOnExit': rules} if rules else {})}
    job = end(submit(instruction, retryStrategy=strategy))
    check((instruction, about(job)), (instruction, wanted))
    check(job['status'], 'SUCCEEDED' if wanted[0] == 0 else 'FAILED')

# The environment. An override has precedence over the definition.
names = ['A', 'B', 'AWS_BATCH_JOB_ID', 'AWS_BATCH_JOB_ATTEMPT', 'AWS_BATCH_JOB_ARRAY_INDEX', 'AWS_BATCH_JQ_NAME']
job = end(submit(*['print=' + name for name in names], environment=[('A', 'override')]))
check((job['status'], about(job)), ('SUCCEEDED', (0, '', 1)))
values = ['override', 'definition', job['jobId'], '1', '(none)', 'tests']
check(log(job), [f'{name}={value}' for name, value in zip(names, values)])
check(len(job['container']['environment']), 2)

# How a job ends, and how many attempts it has.
for instruction, rules, wanted in [
    ('exit=3', [], (3, '', 3)),
    ('fail-before-attempt=3', [], (0, '', 3)),
    ('exit=3', [rule('EXIT', onExitCode='3')], (3, '', 1)),
    ('exit=3', [rule('EXIT', onExitCode='3', onReason='OutOfMemory*')], (3, '', 3)),
    ('exit=3', [rule('EXIT', onExitCode='4')], (3, '', 3)),
]:
    ends_as(instruction, rules, wanted)
job = end(submit('sleep=600', timeout={'attemptDurationSeconds': 1}, retryStrategy={'attempts': 3}))
check((about(job), job['statusReason'], log(job)), ((75, '', 1), 'Job attempt duration exceeded timeout', ['asked to end']))

# Arrays: every index once, a parent that fails when all have ended, and a counterpart that fails without running.
first = submit(
    'print=AWS_BATCH_JOB_ARRAY_INDEX', 'print=AWS_BATCH_JOB_ARRAY_SIZE', 'fail-index=5', arrayProperties={'size': 20})
second = submit('exit=0', arrayProperties={'size': 20}, dependsOn=[{'jobId': first, 'type': 'N_TO_N'}])
for parent in [first, second]:
    job = end(parent)
    summary = job['arrayProperties']['statusSummary']
    check((job['status'], summary['SUCCEEDED'], summary['FAILED']), ('FAILED', 19, 1))
check(about(look(second + ':5')), (None, '', 0))
children = [look(f'{first}:{at}') for at in range(20)]
wanted = [[f'AWS_BATCH_JOB_ARRAY_INDEX={at}', 'AWS_BATCH_JOB_ARRAY_SIZE=20'] for at in range(20)]
check([log(child) for child in children], wanted)
failed = batch.list_jobs(arrayJobId=first, jobStatus='FAILED')['jobSummaryList']
check([(job['jobId'], job['container']['exitCode']) for job in failed], [(first + ':5', 4)])
check(batch.list_jobs(arrayJobId=first)['jobSummaryList'], [])

# No more than 8 at a time. Cancelling ends those that wait, terminating those that run, by SIGTERM.
parent = submit('sleep=600', arrayProperties={'size': 10})
while look(parent)['arrayProperties']['statusSummary']['RUNNING'] < 8:
    time.sleep(0.1)
check((look(parent)['status'], look(parent)['arrayProperties']['statusSummary']['RUNNABLE']), ('PENDING', 2))
check(len(batch.list_jobs(arrayJobId=parent)['jobSummaryList']), 8)
batch.cancel_job(jobId=parent, reason='cancelled')
while look(parent)['arrayProperties']['statusSummary']['FAILED'] < 2:
    time.sleep(0.1)
check(look(parent)['arrayProperties']['statusSummary']['RUNNING'], 8)
# Requested until the job has ended: the first process of a container may not handle signals yet.
while look(parent)['status'] != 'FAILED':
    batch.terminate_job(jobId=parent, reason='terminated')
    time.sleep(0.1)
check(look(parent)['statusReason'], 'terminated')
ends = [(child['statusReason'], *about(child)) for child in (look(f'{parent}:{at}') for at in range(10))]
check(sorted(ends, key=str), [('cancelled', None, '', 0)] * 2 + [('terminated', 75, '', 1)] * 8)
";

/// Runs the script for each point with real containers, and checks that are specific to containers.
#[test]
fn jobs_are_containers() {
    let Some((docker, moto)) = start_with_docker() else { return };
    let script = format!(
        "{QUEUE}{POINTS}
rules = [rule('RETRY', onExitCode='3'), rule('EXIT', onReason='OutOfMemory*')]
ends_as('fill-memory', rules, (137, 'OutOfMemoryError', 1))
# An image that does not exist.
define('127.0.0.1:9/nothing:x')
job = end(submit())
check((about(job), job['statusReason']), ((None, 'CannotPullContainerError', 1), 'Task failed to start'))
"
    );
    let recorder = Recorder::before(&moto.url());
    assert_eq!(run_script(&recorder, &script), "", "{}", moto.log());
    recorder.validate();
    let containers =
        run(docker.command().args(["ps", "--all", "--quiet", "--filter", "ancestor=cloudknot-tests-instructed"]));
    assert_eq!(containers, "", "containers remain");
}

/// Runs the script for each point without an engine, and checks that are specific to processes.
#[test]
fn jobs_can_be_child_processes() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some((moto, recorder)) = start() else { return };
    let script = format!(
        "{QUEUE}
define('process:{}')
{POINTS}
# The processes that a job has started die with it, even in their own session; its last output is in the log.
define('process:/bin/sh')
job = end(submit('-c', 'setsid sleep 600 & echo one; printf two >&2; kill -9 $$'))
check((about(job), log(job)), ((137, '', 1), ['one', 'two']))
for each in glob.glob('/proc/[0-9]*/environ'):
    with contextlib.suppress(OSError), open(each, 'rb') as environment:
        check(job['jobId'].encode() in environment.read(), False)
define('process:/nonexistent')
job = end(submit())
check((about(job), job['statusReason']), ((None, 'CannotStartContainerError', 1), 'Task failed to start'))
",
        container(folder.path()).display()
    );
    assert_eq!(run_script(&recorder, &script), "", "{}", moto.log());
    recorder.validate();
}

// --- helpers ---

/// Returns an engine with an image whose containers follow instructions (`tests/moto/container.c`), and a moto that
/// uses it.
fn start_with_docker() -> Option<(std::sync::Arc<Docker>, Moto)> {
    let docker = Docker::get()?;
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_path_with_name(container(folder.path()), "run").expect("an archive");
    std::fs::write(path("image.tar"), archive.into_inner().expect("an archive")).expect("a file");
    let mut import = docker.command();
    import.args(["import", "--change", "ENTRYPOINT [\"/run\"]"]).arg(path("image.tar"));
    run(import.arg("cloudknot-tests-instructed"));
    // The image exists already, so nothing is pulled that would require a login.
    let moto = Moto::start_with_docker(&docker, Path::new("/nonexistent"))?;
    Some((docker, moto))
}

/// Compiles the program that follows instructions.
fn container(folder: &Path) -> PathBuf {
    let (source, to) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("moto/container.c"), folder.join("run"));
    run(Command::new("cc").args(["-O1", "-static", "-o"]).arg(&to).arg(source));
    to
}
