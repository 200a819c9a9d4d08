#!/usr/bin/env python3
"""Starts moto's server, with Batch jobs that behave as AWS documents them.

    server.py -H 127.0.0.1 -p PORT        accepts the arguments of moto_server
    server.py --forks SOCKET              forks a server for each connection to this Unix socket; it reads one line of
                                          JSON, {"environment": {NAME: VALUE or null}, "log": FILE}, writes its log
                                          to that file, and ends with the connection

The following behaviour is implemented here and not in moto. A test that relies on it shows that this program follows
the documentation, not that AWS does:

- A container's environment contains the definition's variables, overridden by the job's, and AWS_BATCH_JOB_ID,
  AWS_BATCH_JOB_ATTEMPT (from 1), AWS_BATCH_JQ_NAME, AWS_BATCH_CE_NAME and, only in children of an array,
  AWS_BATCH_JOB_ARRAY_INDEX (from 0) and AWS_BATCH_JOB_ARRAY_SIZE. DescribeJobs does not show these AWS_BATCH_ variables.
- An array's parent is PENDING until all of its children have ended, and then FAILED if one of them is; it never runs.
- TerminateJob applies to all children of an array, CancelJob to those that have not started. A container that is terminated
  gets SIGTERM, and SIGKILL 30 seconds later. So does one that exceeds its timeout.
- The log stream of an attempt is `<awslogs-stream-prefix>/default/<ID of the task>`; without a prefix, it begins with the name of the
  job definition. Containers find it at the task metadata endpoint (version 4), in documents as the developer guide of Amazon ECS shows
  them.
- A container has the memory that its job requests, as a hard limit. DescribeJobs returns exit codes, reasons and attempts.
- A job runs up to `attempts` times. The rules of `evaluateOnExit` are evaluated in order, and all conditions of a rule must
  match; if no rule matches, the job is retried. A job that was terminated or timed out is not retried.
- SubmitJob to a queue with a scheduling policy requires a share identifier, and a scheduling priority in the job definition; to
  another queue, a share identifier is refused.
- The instance types of a compute environment may be `default_x86_64` and `default_arm64`.
- Dependencies may be N_TO_N, and SEQUENTIAL between the children of one array.
- DescribeJobs accepts up to 100 IDs, SubmitJob arrays of 2 to 10,000. ListJobs without a status lists the RUNNING jobs.
- The security groups of a compute environment are in it or in the network interface of its launch template, and not in both.
- DescribeVpcEndpointServices filters by the names of services.
- The default VPC has an internet gateway, and its main route table a route to it.
- At most SLOTS containers run at a time; the other jobs are RUNNABLE.
- A compute environment without a service role has AWS's service-linked one, which is created with the first one.
- Requests are handled one after the other, except those for S3's objects and buckets, because moto's state is not
  thread-safe: if one request creates a stack while another reads it, one fails, and the stack stays CREATE_IN_PROGRESS.

With CLOUDKNOT_TESTS_ACCOUNT in its environment, a container finds credentials, the region and the address of this server in the
variables of the SDK. On AWS, it finds the credentials of its role at the address in AWS_CONTAINER_CREDENTIALS_RELATIVE_URI.

For tests whose functions write files, containers run as root and share the folder that CLOUDKNOT_TESTS_FOLDER names.

A job with the image `process:/PATH` is a child process of this program instead of a container: it runs the executable /PATH
and needs no Docker. Its arguments are the job's command. Its environment is the job's environment, with the container's
name added as CLOUDKNOT_TESTS_JOB. When it ends, every process with that value in its environment is killed. A SIGTERM that
it does not handle ends it; the first process of a container ignores such a signal. Memory limits, users, read-only roots
and volumes are not supported for processes.

Volumes, secrets, GPUs and ulimits are not supported. Jobs without container properties run as in moto.
"""

import atexit
import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from copy import copy
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from signal import SIGTERM, Signals, signal

import docker
from moto import settings
from moto.backends import get_backend
from moto.batch import models
from moto.batch.exceptions import ClientException
from moto.batch.responses import BatchResponse
from moto.batch.utils import JobStatus
from moto.core.parse import default_timestamp_parser
from moto.core.responses import BaseResponse
from moto.core.utils import unix_time_millis
from moto.ec2.models import EC2Backend
from moto.iam.models import IAMBackend
from moto.moto_api import state_manager
from moto.moto_api._internal import mock_random
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app, main
from moto.utilities.utils import get_partition
from werkzeug.serving import make_server

# The account and the region of the tests.
ACCOUNT, REGION = "123456789012", "eu-west-1"
SLOTS = 8
# Time between SIGTERM and SIGKILL, in seconds.
STOP_TIMEOUT = 30
ENDED = ("SUCCEEDED", "FAILED")
# Names of several instance families that moto does not know, and a type of one of them.
BUNDLES = {"default_x86_64": "m6i.4xlarge", "default_arm64": "m6g.4xlarge"}
# Service-linked role of AWS Batch.
SERVICE_ROLE, SERVICE_PATH = "AWSServiceRoleForBatch", "/aws-service-role/batch.amazonaws.com/"
# Prefix of the image of a job that runs as a process.
PROCESS = "process:"

slots = threading.Semaphore(SLOTS)
pulling = threading.Lock()
# Held during each request.
handling = threading.RLock()
# AWS managed policies, by account.
managed_policies = {}
# Scheduling priorities of job definitions, by ARN; moto drops them.
scheduling_priorities = {}
# Parameters of SubmitJob that moto does not pass on to the job. Each request runs in its own thread.
submitted = threading.local()


class JobEnded(Exception):
    """The job ends without another attempt; the argument is its reason."""


class Engine:
    """The single connection to Docker, created when the first job needs it."""

    client = None
    lock = threading.Lock()
    # All existing containers, to remove them at exit: the engine may outlive this program.
    containers = set()

    @classmethod
    def get(cls):
        with cls.lock:
            if cls.client is None:
                cls.client = docker.from_env(timeout=600, max_pool_size=4 * SLOTS)
            return cls.client


class MetadataServer(ThreadingHTTPServer):
    # With the five of the default, the connections of three containers that start at once do not fit. The kernel then tries again
    # after a second, when the worker does not wait any longer.
    request_queue_size = 128


class Metadata(BaseHTTPRequestHandler):
    """The task metadata endpoint: a server of this program, started when the first container needs it."""

    server = None
    lock = threading.Lock()
    # Group and stream of the log of each container, by its path.
    logs = {}

    @classmethod
    def address_of(cls, group, stream):
        with cls.lock:
            if cls.server is None:
                cls.server = MetadataServer(("127.0.0.1", 0), cls)
                threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        path = f"/v4/{uuid.uuid4().hex}"
        cls.logs[path] = group, stream
        return f"http://127.0.0.1:{cls.server.server_port}{path}"

    def do_GET(self):
        path = self.path.removesuffix("/task")
        if path not in self.logs:
            return self.send_error(404)
        group, stream = self.logs[path]
        options = {"awslogs-group": group, "awslogs-region": REGION, "awslogs-stream": stream}
        container = {"Name": "default", "DesiredStatus": "RUNNING", "LogDriver": "awslogs", "LogOptions": options}
        task = {"Cluster": "default", "AvailabilityZone": f"{REGION}b", "LaunchType": "EC2", "Containers": [container]}
        document = json.dumps(task if self.path.endswith("/task") else container).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(document)))
        self.end_headers()
        self.wfile.write(document)

    def log_message(self, *_):
        pass


class Process:
    """A child process with the members of docker's Container that a job uses."""

    attrs = {"State": {"OOMKilled": False}}
    # Held while a process starts; acquired for good when this program ends.
    starting = threading.Lock()

    def __init__(self, image, command, environment, name, **_):
        self.command = [image.removeprefix(PROCESS), *(command or [])]
        self.environment = environment | {"CLOUDKNOT_TESTS_JOB": name}
        self.mark = f"CLOUDKNOT_TESTS_JOB={name}".encode()
        self.process = None
        self.lines, self.unfinished = [], b""

    def start(self):
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        try:
            with self.starting:
                self.process = subprocess.Popen(
                    self.command, env=self.environment, cwd="/", start_new_session=True, **pipes
                )
        except OSError as error:
            raise docker.errors.APIError(str(error)) from error
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        with self.process.stdout as pipe:
            while data := os.read(pipe.fileno(), 1 << 16):
                *lines, self.unfinished = (self.unfinished + data).split(b"\n")
                self.lines += [stamped(line) for line in lines]

    def wait(self, **_):
        code = self.process.wait()
        self.kill_remaining()
        # A process that has cleared its environment is still alive, and may hold the pipe open.
        self.reader.join(timeout=5)
        return {"StatusCode": code if code >= 0 else 128 - code}

    def kill_remaining(self):
        while remaining := [pid for pid in os.listdir("/proc") if pid.isdigit() and self.has_started(pid)]:
            for pid in remaining:
                try:
                    os.kill(int(pid), Signals.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.005)

    def has_started(self, pid):
        try:
            return self.mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            # The process has ended, or belongs to another user.
            return False

    def kill(self, signal):
        self.process.send_signal(Signals[signal])

    def reload(self):
        pass

    def logs(self, **_):
        return b"".join([*self.lines, stamped(self.unfinished) if self.unfinished else b""])

    def remove(self, **_):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.kill_remaining()


class Job(models.Job):
    """A job that keeps its own state. A moto job becomes RUNNING as soon as its state is read."""

    # moto registers its models by their module.
    __module__ = models.__name__

    def __init__(self, *args, **kwargs):
        self.own_status = JobStatus.SUBMITTED.value
        self.signals = threading.Lock()
        self.container = None
        self.timed_out = False
        self.is_terminated = False
        self.last = {}
        super().__init__(*args, **kwargs)
        self.retry_strategy = getattr(submitted, "retry_strategy", None) or self.job_definition.retry_strategy or {}

    # --- state ---

    @property
    def status(self):
        children = [child.status for child in self._child_jobs or []]
        if not children:
            return self.own_status
        if any(status not in ENDED for status in children):
            return JobStatus.PENDING.value
        return JobStatus.FAILED.value if "FAILED" in children else JobStatus.SUCCEEDED.value

    @status.setter
    def status(self, value):
        self.own_status = getattr(value, "value", value)

    def enter(self, status):
        """Enters this state, and stays in it for a time if the test has configured one."""
        if self.stop:
            raise JobEnded(self.job_stopped_reason)
        self.status = status
        transition = state_manager.get_transition("batch::job")
        if transition["progression"] == "time":
            end = time.monotonic() + transition["seconds"]
            while not self.stop and time.monotonic() < end:
                time.sleep(0.05)

    def end(self, success, reason):
        self.job_stopped_reason = reason
        self._mark_stopped(success=success)

    @property
    def index(self):
        return self.array_properties.get("index")

    def parent(self):
        return self.all_jobs[self.job_id.partition(":")[0]]

    # --- execution ---

    def run(self):
        if self.job_definition.container_properties is None:
            return super().run()
        try:
            self.enter(JobStatus.PENDING)
            self.await_dependencies()
            self.run_attempts()
        except JobEnded as error:
            self.end(False, str(error))
        except Exception as error:  # The job must not hang, whatever the error.
            models.logger.error("job %s: %s", self.job_id, error)
            self.end(False, f"the simulated Batch failed: {error}")

    def await_dependencies(self):
        for dependency in self.depends_on or []:
            other = self.counterpart(dependency)
            while other and other.status != "SUCCEEDED":
                if self.stop:
                    raise JobEnded(self.job_stopped_reason)
                if other.status == "FAILED":
                    raise JobEnded("Dependent Job failed")
                time.sleep(0.1)

    def counterpart(self, dependency):
        """Returns the job that this one waits for, or None for the first of a sequence."""
        kind, job_id = dependency.get("type"), dependency.get("jobId")
        if kind == "SEQUENTIAL" and self.index is not None:
            return self.all_jobs[f"{self.parent().job_id}:{self.index - 1}"] if self.index else None
        if kind == "N_TO_N" and self.index is not None:
            return self.all_jobs[f"{job_id}:{self.index}"]
        return self.all_jobs[job_id]

    def run_attempts(self):
        attempts = int(self.retry_strategy.get("attempts", 1))
        for attempt in range(1, attempts + 1):
            self.enter(JobStatus.RUNNABLE)
            while not slots.acquire(timeout=0.2):
                if self.stop:
                    raise JobEnded(self.job_stopped_reason)
            try:
                succeeded = self.attempt(attempt)
            finally:
                slots.release()
            if succeeded:
                return self.end(True, self.last["statusReason"])
            if self.stop:
                raise JobEnded(self.job_stopped_reason)
            if self.timed_out or not self.may_retry():
                break
        raise JobEnded(self.last["statusReason"])

    def may_retry(self):
        container = self.last["container"]
        exit_code = container.get("exitCode")
        seen = {
            "onExitCode": "" if exit_code is None else str(exit_code),
            "onReason": container.get("reason", ""),
            "onStatusReason": self.last["statusReason"],
        }
        for rule in self.retry_strategy.get("evaluateOnExit", []):
            if all(matches(rule[name], seen[name]) for name in seen if name in rule):
                return rule["action"].upper() == "RETRY"
        return True

    def attempt(self, number):
        """Runs one container to its end and returns whether it succeeded. Describes the attempt in `self.last`."""
        self.enter(JobStatus.STARTING)
        self.last = {"container": {"taskArn": self.arn, "networkInterfaces": []}, "statusReason": "Task failed to start"}
        try:
            return self.run_container(number)
        finally:
            self.last["stoppedAt"] = models.datetime2int_milliseconds(datetime.now())
            self.attempts.append(self.last)

    def run_container(self, number):
        description, step = self.last["container"], "Pull"
        prefix = self.log_options().get("awslogs-stream-prefix", self.job_definition.name)
        self.log_stream_name = f"{prefix}/default/{uuid.uuid4().hex}"
        try:
            self.pull()
            step = "Create"
            create = Process if self.is_process() else Engine.get().containers.create
            container = create(**self.settings(number))
            Engine.containers.add(container)
        except docker.errors.DockerException as error:
            description["reason"] = f"Cannot{step}ContainerError: {error}"
            return False
        try:
            return self.watch(container, description)
        except docker.errors.APIError as error:
            description["reason"] = f"CannotStartContainerError: {error}"
            return False
        finally:
            with self.signals:
                self.container = None
            remove(container)

    def watch(self, container, description):
        # The start of a job is the start of its last attempt, as on AWS.
        self.job_started_at = datetime.now()
        self.last["startedAt"] = models.datetime2int_milliseconds(self.job_started_at)
        description["logStreamName"] = self.log_stream_name
        with self.signals:
            container.start()
            self.container = container
        self.status = JobStatus.RUNNING
        # The job may have been terminated while the container was starting.
        if self.stop:
            self.signal()
        timer = self.limit()
        try:
            description["exitCode"] = self.exit_code = container.wait(timeout=24 * 3600)["StatusCode"]
        finally:
            timer.cancel()
        container.reload()
        # Docker reports an OOM kill later than the exit, under load by seconds; for processes there is no report.
        for _ in range(0 if self.is_process() else 50):
            if self.exit_code != 137 or self.stop or self.timed_out or container.attrs["State"]["OOMKilled"]:
                break
            time.sleep(0.2)
            container.reload()
        if container.attrs["State"]["OOMKilled"]:
            description["reason"] = "OutOfMemoryError: Container killed due to memory usage"
        overran = "Job attempt duration exceeded timeout"
        self.last["statusReason"] = overran if self.timed_out else "Essential container in task exited"
        self.keep_log(container)
        return self.exit_code == 0 and not self.stop and not self.timed_out

    def is_process(self):
        return self.job_definition.container_properties["image"].startswith(PROCESS)

    def pull(self):
        if self.is_process():
            return
        image = self.job_definition.container_properties["image"]
        with pulling:
            try:
                Engine.get().images.get(image)
            except docker.errors.ImageNotFound:
                Engine.get().images.pull(image)

    def settings(self, attempt):
        properties = self.job_definition.container_properties
        linux = properties.get("linuxParameters", {})
        command = self.container_overrides.get("command", properties.get("command", []))
        found = {
            "image": properties["image"],
            # None selects the image's own command.
            "command": self._add_parameters_to_command(command) or None,
            "environment": self.environment(attempt),
            "name": f"{self.job_name}-{self.job_id.replace(':', '-')}-{attempt}",
            "privileged": properties.get("privileged", False),
            "read_only": properties.get("readonlyRootFilesystem", False),
            "user": properties.get("user"),
            "network_mode": settings.moto_network_mode(),
            "detach": True,
        }
        if folder := os.environ.get("CLOUDKNOT_TESTS_FOLDER"):
            found |= {"volumes": {folder: {"bind": folder, "mode": "rw"}}, "user": "0"}
        if memory := self.requirement("MEMORY"):
            found |= {"mem_limit": f"{memory}m", "memswap_limit": f"{memory}m"}
        if shared := linux.get("sharedMemorySize"):
            found["shm_size"] = f"{shared}m"
        return found

    def requirement(self, kind):
        for place in (self.container_overrides, self.job_definition.container_properties):
            for requirement in place.get("resourceRequirements", []):
                if requirement["type"] == kind:
                    return requirement["value"]
        return self.job_definition.container_properties.get(kind.lower())

    def requested_environment(self):
        places = (self.job_definition.container_properties, self.container_overrides)
        return {each["name"]: each["value"] for place in places for each in place.get("environment", [])}

    def environment(self, attempt):
        found = self.requested_environment() | {
            "AWS_BATCH_JOB_ID": self.job_id,
            "AWS_BATCH_JOB_ATTEMPT": str(attempt),
            "AWS_BATCH_JQ_NAME": self.job_queue.name,
            "AWS_BATCH_CE_NAME": self.job_queue.environments[0].name,
        }
        group = self.log_options().get("awslogs-group", "/aws/batch/job")
        found["ECS_CONTAINER_METADATA_URI_V4"] = Metadata.address_of(group, self.log_stream_name)
        if "CLOUDKNOT_TESTS_ACCOUNT" in os.environ:
            found |= {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{os.environ['MOTO_PORT']}",
                "AWS_REGION": REGION,
                "AWS_ACCESS_KEY_ID": "ASIATEST",
                "AWS_SECRET_ACCESS_KEY": "a-secret-of-a-role",
            }
        if self.index is not None:
            found["AWS_BATCH_JOB_ARRAY_INDEX"] = str(self.index)
            # The children cannot be counted: the first ones start while moto still creates the others.
            found["AWS_BATCH_JOB_ARRAY_SIZE"] = str(self.parent().array_properties["size"])
        return found

    def log_options(self):
        return self.job_definition.container_properties.get("logConfiguration", {}).get("options", {})

    def keep_log(self, container):
        group = self.log_options().get("awslogs-group", "/aws/batch/job")
        lines = container.logs(timestamps=True).decode(errors="replace").split("\n")
        pairs = [line.partition(" ")[::2] for line in lines if line]
        events = [
            {"timestamp": int(unix_time_millis(default_timestamp_parser(at))), "message": text} for at, text in pairs
        ]
        self._log_backend.ensure_log_group(group)
        self._log_backend.ensure_log_stream(group, self.log_stream_name)
        self._log_backend.put_log_events(group, self.log_stream_name, sorted(events, key=lambda event: event["timestamp"]))

    # --- termination ---

    def terminate(self, reason):
        if self.status in ENDED:
            return
        self.is_terminated = True
        for child in self._child_jobs or []:
            child.terminate(reason)
        super().terminate(reason)
        self.signal()

    def signal(self):
        """Sends SIGTERM to the container, and SIGKILL after STOP_TIMEOUT seconds."""
        with self.signals:
            container = self.container
            if container is None:
                return
            later = threading.Timer(STOP_TIMEOUT, kill, [container, "SIGKILL"])
            later.daemon = True
            later.start()
            kill(container, "SIGTERM")

    def limit(self):
        def overrun():
            self.timed_out = True
            self.signal()

        timer = threading.Timer(self._get_attempt_duration() or threading.TIMEOUT_MAX, overrun)
        timer.daemon = True
        timer.start()
        return timer

    # --- description ---

    def describe_short(self):
        self.settle()
        found = super().describe_short()
        if self.index is not None:
            found["arrayProperties"] = {"index": self.index}
        elif self._child_jobs:
            found["arrayProperties"] = {"size": len(self._child_jobs)}
        if container := self.container_fields("exitCode", "reason"):
            found["container"] = container
        if not self.began:
            found.pop("startedAt", None)
        return found

    def describe(self):
        self.settle()
        found = super().describe()
        if "container" in found:
            found["container"] |= self.container_fields("exitCode", "reason", "logStreamName")
            found["container"]["image"] = self.job_definition.container_properties["image"]
            requested = self.requested_environment()
            found["container"]["environment"] = [{"name": name, "value": value} for name, value in requested.items()]
        if self.index is not None:
            found["arrayProperties"] = {"index": self.index, "statusSummary": {}}
        found["isTerminated"] = self.is_terminated
        if self.retry_strategy:
            found["retryStrategy"] = self.retry_strategy
        return found

    def container_fields(self, *names):
        description = self.last.get("container", {})
        return {name: description[name] for name in names if name in description}

    @property
    def began(self):
        # moto uses this value for a job that has not started.
        return self.job_started_at != datetime(1970, 1, 1)

    def settle(self):
        """Sets the times and the final reason of an array's parent once all children have ended."""
        if self._child_jobs and self.status in ENDED and not self.job_stopped:
            begun = [child.job_started_at for child in self._child_jobs if child.began]
            self.job_started_at = min(begun, default=self.job_started_at)
            self.job_stopped_at = max(child.job_stopped_at for child in self._child_jobs)
            self.job_stopped = True
            if self.status == "FAILED" and not self.job_stopped_reason:
                self.job_stopped_reason = "Array Child Job failed"

    def _get_container_property(self, name, default):
        # moto would append to the list of the request, which all children of an array share.
        if name == "environment":
            return [{"name": key, "value": value} for key, value in self.requested_environment().items()]
        if name in ("vcpus", "memory"):
            return int(float(self.requirement("VCPU" if name == "vcpus" else "MEMORY") or default))
        return super()._get_container_property(name, default)


def matches(pattern, text):
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def stamped(line):
    """Returns the line with a timestamp, in Docker's format."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{at}.{nanoseconds:09}Z ".encode() + line + b"\n"


def kill(container, signal):
    try:
        container.kill(signal=signal)
    except docker.errors.DockerException:
        # The container has already ended.
        pass


def remove(container):
    try:
        container.remove(force=True)
    except docker.errors.APIError:
        # The job has removed it already, or the engine is removing it.
        pass
    Engine.containers.discard(container)


@atexit.register
def remove_containers():
    Process.starting.acquire()
    for container in list(Engine.containers):
        remove(container)


# --- requests ---


def call_action(self, call=BaseResponse.call_action):
    with handling:
        return call(self)


def submit_job(self, submit=BatchResponse.submitjob):
    size = (self._get_param("arrayProperties") or {}).get("size")
    if size is not None and not 2 <= size <= 10_000:
        raise ClientException(f"arrayProperties.size is {size}, but must be from 2 to 10000")
    queue = self.batch_backend.get_job_queue(self._get_param("jobQueue"))
    definition = self.batch_backend.get_job_definition(self._get_param("jobDefinition"))
    if queue and definition:
        check_share(queue, self._get_param("shareIdentifier"), scheduling_priorities.get(definition.arn))
    submitted.retry_strategy = self._get_param("retryStrategy")
    return submit(self)


def check_share(queue, share, priority):
    if queue.schedule_policy and not share:
        raise ClientException("shareIdentifier must be specified.")
    if share and not queue.schedule_policy:
        raise ClientException("shareIdentifier must not be specified for a job queue without a scheduling policy.")
    if share and priority is None:
        raise ClientException("schedulingPriority must be set for a job using ShareIdentifier.")


def register_job_definition(self, register=BatchResponse.registerjobdefinition):
    response = register(self)
    scheduling_priorities[json.loads(response)["jobDefinitionArn"]] = self._get_param("schedulingPriority")
    return response


def definition_from_template(cls, name, template, *args, create=models.JobDefinition.create_from_cloudformation_json, **kwargs):
    definition = create(name, template, *args, **kwargs)
    scheduling_priorities[definition.arn] = template["Properties"].get("SchedulingPriority")
    return definition


# moto updates no job definition of a stack. CloudFormation registers another revision.
def updated_definition(cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name):
    return cls.create_from_cloudformation_json(new_resource_name, cloudformation_json, account_id, region_name)


def smallest_instances(instance_types, target, find=models.BatchBackend.find_min_instances_to_meet_vcpus):
    return find([BUNDLES.get(each, each) for each in instance_types], target)


def describe_jobs(self, describe=BatchResponse.describejobs):
    if len(self._get_param("jobs") or []) > 100:
        raise ClientException("DescribeJobs accepts at most 100 jobs")
    return describe(self)


def list_jobs(self, *args, job_status=None, filters=None, listed=models.BatchBackend.list_jobs, **kwargs):
    if job_status is None and filters is None:
        job_status = "RUNNING"
    return listed(self, *args, job_status=job_status, filters=filters, **kwargs)


def create_compute_environment(self, *args, service_role=None, create=models.BatchBackend.create_compute_environment, **kwargs):
    if not service_role:
        roles = [role for role in self.iam_backend.get_roles() if role.name == SERVICE_ROLE]
        role = roles[0] if roles else self.iam_backend.create_role(SERVICE_ROLE, "{}", SERVICE_PATH, None, "", [], "3600")
        service_role = role.arn
    return create(self, *args, service_role=service_role, **kwargs)


def environment_of_stack(cls, resource_name, cloudformation_json, account_id, region_name, **_):
    properties = cloudformation_json["Properties"]
    return models.batch_backends[account_id][region_name].create_compute_environment(
        resource_name,
        properties["Type"],
        properties.get("State", "ENABLED"),
        models.lowercase_first_key(properties["ComputeResources"]),
        service_role=properties.get("ServiceRole"),
    )


def cancel_job(self, job_id, reason):
    job = self.get_job_by_id(job_id)
    for each in (job._child_jobs or [job]) if job else []:
        if JobStatus.is_job_before_starting(each.status):
            each.terminate(reason)


def validate_compute_resources(self, resources, validate=models.BatchBackend._validate_compute_resources):
    """Reads the security groups of the launch template, as of an environment that has none of its own."""
    named = resources.get("launchTemplate") or {}
    template = named.get("launchTemplateId") and self.ec2_backend.get_launch_template(named["launchTemplateId"])
    data = template.get_version(named.get("version", "$Default")).data if template else {}
    interfaces = data.get("NetworkInterfaces") or data.get("NetworkInterface") or []
    if interfaces and resources.get("securityGroupIds"):
        # The text of AWS's error (aws/aws-cdk#21577).
        raise ClientException(
            "Error executing request, Exception : Either compute environment Security Groups or Network Interfaces in Launch template "
            "are exclusively allowed"
        )
    groups = [group for interface in interfaces for group in interface.get("Groups") or interface.get("SecurityGroupId") or []]
    return validate(self, {**resources, "securityGroupIds": groups} if groups else resources)


def create_default_vpc(self, create=EC2Backend.create_default_vpc):
    vpc = create(self)
    gateway = self.create_internet_gateway()
    self.attach_internet_gateway(gateway.id, vpc.id)
    (main,) = self.describe_route_tables(filters={"vpc-id": [vpc.id], "association.main": ["true"]})
    self.create_route(main.id, "0.0.0.0/0", gateway_id=gateway.id)
    return vpc


def describe_vpc_endpoint_services(self, service_names, filters, *args, **kwargs):
    # moto expects another name of the values.
    filters = [{**each, "Value": each.get("Value") or each.get("Values")} for each in filters or []]
    return describe_services(self, service_names, filters, *args, **kwargs)


def init_aws_policies(self, read=IAMBackend._init_aws_policies):
    """Reads the AWS managed policies once. moto reads them per partition and after each reset, which takes a second."""
    if self.account_id not in managed_policies:
        managed_policies[self.account_id] = read(self)
    found = [copy(policy) for policy in managed_policies[self.account_id]]
    for policy in found:
        policy.partition = get_partition(self.region_name)
    return found


# Must run before the rest of moto is loaded, so that it uses these replacements.
models.Job = Job
models.BatchBackend.list_jobs = list_jobs
models.BatchBackend.cancel_job = cancel_job
models.BatchBackend.find_min_instances_to_meet_vcpus = staticmethod(smallest_instances)
models.EC2_INSTANCE_FAMILIES += BUNDLES
models.JobDefinition.create_from_cloudformation_json = classmethod(definition_from_template)
models.JobDefinition.update_from_cloudformation_json = classmethod(updated_definition)
BatchResponse.registerjobdefinition = register_job_definition
models.BatchBackend._validate_compute_resources = validate_compute_resources
models.BatchBackend.create_compute_environment = create_compute_environment
models.ComputeEnvironment.create_from_cloudformation_json = classmethod(environment_of_stack)
BatchResponse.submitjob = submit_job
BatchResponse.describejobs = describe_jobs
EC2Backend.create_default_vpc = create_default_vpc
describe_services = EC2Backend.describe_vpc_endpoint_services
EC2Backend.describe_vpc_endpoint_services = describe_vpc_endpoint_services
IAMBackend._init_aws_policies = init_aws_policies
BaseResponse.call_action = call_action


# --- forked servers ---


def fork_for_each_connection(path):
    app = DomainDispatcherApplication(create_backend_app)
    app.debug = True
    # Loads the slowest parts of moto in advance, so that no fork has to.
    for service in ("batch", "cloudformation", "ec2", "ecr", "iam", "logs", "s3", "servicequotas", "sts"):
        get_backend(service)
    get_backend("ec2")[ACCOUNT][REGION].describe_instance_types()
    get_backend("iam")[ACCOUNT]["aws"].list_roles()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            serve_until_closed(connection, app)
            return
        connection.close()
        while a_fork_has_ended():
            pass


def a_fork_has_ended():
    try:
        return os.waitpid(-1, os.WNOHANG)[0] > 0
    except ChildProcessError:
        return False


def serve_until_closed(connection, app):
    line = connection.makefile().readline()
    if not line:
        # The client only checked that the socket exists.
        return
    requested = json.loads(line)
    log = os.open(requested["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for name, value in requested["environment"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    # Without a new seed, all forks would assign the same IDs to resources, and the same names to containers.
    mock_random.seed()
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    os.environ["MOTO_PORT"] = str(server.port)
    signal(SIGTERM, lambda *_: sys.exit())
    threading.Thread(target=end_when_closed, args=[connection], daemon=True).start()
    connection.sendall(f"{server.port}\n".encode())
    server.serve_forever()


def end_when_closed(connection):
    connection.recv(1)
    os.kill(os.getpid(), SIGTERM)


if __name__ == "__main__":
    if sys.argv[1] == "--forks":
        fork_for_each_connection(sys.argv[2])
    else:
        main(sys.argv[1:])
