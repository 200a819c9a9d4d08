"""The options of the stacks, and combinations of them: those that users choose together, and others, so that each pair of values of
two options occurs in at least one combination.

An option is a table of values; a value is a change of the context that it `extends`, as in the files of contexts/. In a change, the
key "function" is a change of each function. The first value of each option is its default.
"""

from itertools import product

KEY = "arn:aws:kms:us-east-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:api-key-AbCdEf"
PARAMETER = "arn:aws:ssm:us-east-1:123456789012:parameter/lab/token"
TEAM = {"permissions_boundary": "arn:aws:iam::123456789012:policy/boundary", "role_path": "/science/"}
ALL_LOG_DRIVERS = ["awslogs", "fluentd", "gelf", "journald", "json-file", "splunk", "syslog"]


def tags(count):
    return {"tags": [{"key": f"tag-{number}", "value": str(number)} for number in range(count)]}


def log(driver, options, secrets=(), agent=()):
    listed = [{"name": name, "value": value} for name, value in options.items()]
    secrets = [{"name": name, "from": SECRET} for name in secrets]
    return {"function": {"log": {"driver": driver, "options": listed, "secrets": secrets}}, "compute": {"log_drivers": list(agent)}}


def mount(number, root, access_point):
    return {
        "volume": f"efs-{number}", "file_system": f"fs-0123456789abcdef{number}", "root": root, "access_point": access_point,
        "iam": access_point is not None, "path": f"/data/{number}", "read_only": number == 0,
    }  # fmt: skip


def on_fargate(kind):
    compute = {"replace": True, "kind": kind, "max_vcpus": 64, "log_drivers": []}
    return {"compute": compute, "function": {"vcpus": "0.25", "memory_mib": "512"}}


KNOT = {
    "compute": {
        "ec2": {},
        "spot": {"compute": {"kind": "spot", "bid_percentage": 60}},
        "service-role": {"compute": {"service_role": "arn:aws:iam::123456789012:role/service-role/AWSBatchServiceRole"}},
        "fargate": on_fargate("fargate"),
        "fargate-spot": on_fargate("fargate-spot"),
    },
    "machines": {
        "default": {},
        "gpus": {"compute": {"instance_types": ["g5.2xlarge", "g4dn"], "image_types": ["ECS_AL2023_NVIDIA"]}, "function": {"gpus": 1}},
        "ami": {"compute": {"ami": "ami-0123456789abcdef0", "volume_gib": 200, "key_pair": "lab"}},
        "always": {"compute": {"min_vcpus": 4, "desired_vcpus": 8}},
        "large": {"function": {"vcpus": "32", "memory_mib": "249856"}},
    },
    "architecture": {"x86_64": {}, "arm64": {"image": {"architecture": "arm64"}, "compute": {"instance_types": ["default_arm64"]}}},
    "queue": {
        "own": {},
        "named": {"queue": {"name": "sweep-shared", "priority": 1000}},
        "existing": {"queue": {"replace": True, "existing": "arn:aws:batch:us-east-1:123456789012:job-queue/institute"}},
        "with shares": {
            "queue": {"replace": True, "existing": "arn:aws:batch:us-east-1:123456789012:job-queue/institute"},
            "function": {"scheduling_priority": 9999},
        },
    },
    "stuck jobs": {"wait": {}, "are cancelled": {"queue": {"stuck_after_seconds": 3600}}},
    "repository": {
        "own": {},
        "encrypted": {"repository": {"kms_key": KEY}},
        "shared": {
            "repository": {
                "replace": True,
                "existing": "arn:aws:ecr:us-east-1:123456789012:repository/shared",
                "uri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/shared",
            }
        },
    },
    "image": {"of the repository": {}, "proxied": {"image": {"uri": "registry.example:5000/cloudknot/sweep"}}},
    "secrets": {
        "none": {},
        "manager": {"secrets": {"manager": [SECRET]}, "function": {"secrets": [{"name": "API_KEY", "from": SECRET}]}},
        "parameters": {"secrets": {"parameters": [PARAMETER], "kms": [KEY]}, "function": {"secrets": [{"name": "TOKEN", "from": PARAMETER}]}},
    },
    "role": {
        "own": {},
        "policies": {"policies": ["arn:aws:iam::aws:policy/AmazonDynamoDBReadOnlyAccess"]},
        "given": {"job_role": {"arn": "arn:aws:iam::123456789012:role/jobs-of-the-institute"}},
    },
    "mounts": {
        "none": {},
        "file system": {"function": {"mounts": [mount(0, "/shared", None)]}},
        "access point": {
            "file_systems": [{"id": "fs-0123456789abcdef1", "writable": True}],
            "function": {"mounts": [mount(0, None, None), mount(1, None, "fsap-0123456789abcdef0")]},
        },
    },
    "log": {
        "default": {},
        "splunk": log("splunk", {"splunk-url": "https://splunk.example:8088"}, secrets=["splunk-token"], agent=ALL_LOG_DRIVERS),
        "gelf": log("gelf", {"gelf-address": "udp://gelf.example:12201"}, agent=ALL_LOG_DRIVERS),
        "syslog": log("syslog", {}),
    },
    "root": {"writable": {}, "read-only": {"function": {"read_only": True}}},
    "space": {
        "default": {},
        "shared memory": {"function": {"shared_memory_mib": 2048}},
        "disk": {"function": {"ephemeral_gib": 200}},
    },
    "attempts": {"default": {}, "most": {"function": {"attempts": 10}}},
    "variables": {"none": {}, "some": {"function": {"environment": [{"name": "RUST_LOG", "value": 'info: "#{{ x }}"'}]}}},
    "tags": {"none": {}, "most": tags(46)},
    "team": {"none": {}, "some": TEAM},
    "bucket": {"plain": {}, "encrypted": {"bucket_key": KEY, "prefix": "team/"}},
    "network": {
        "public": {},
        "public interfaces": {"instance_public_ip": True},
        "private": {"assign_public_ip": False},
    },
}


def knot_is_possible(values):
    """Returns whether cloudknot accepts the options chosen so far."""
    on_instances = [
        values.get("compute") in ("ec2", "spot", "service-role"),
        values.get("machines") in ("gpus", "ami", "always"),
        values.get("log") in ("gelf", "syslog"),
        values.get("space") == "shared memory",
    ]
    on_fargate = [values.get("compute") in ("fargate", "fargate-spot"), values.get("space") == "disk"]
    own_queue = [
        values.get("machines") in ("ami", "always"),
        values.get("compute") == "service-role",
        values.get("stuck jobs") == "are cancelled",
    ]
    impossible = [
        any(on_instances) and any(on_fargate),
        any(own_queue) and values.get("queue") in ("existing", "with shares"),
        values.get("machines") == "gpus" and values.get("architecture") == "arm64",
    ]
    return not any(impossible)


def subnets(count, zones):
    return [{"cidr": f"10.0.{16 * each}.0/20", "zone": f"us-east-1{'abc'[each]}" if zones else None} for each in range(count)]


def new_network(internet):
    network = {
        "replace": True, "kind": "new", "cidr": "10.0.0.0/16", "tenancy": "default", "internet": internet, "endpoints": False,
        "subnets": subnets(3, True), "in_china": False, "public_cidr": "10.0.255.0/28" if internet == "nat" else None,
    }  # fmt: skip
    return {"network": network}


PARS = {
    "network": {
        "default": {},
        "public, unassigned": {"network": {"subnets_assign_ip": False}},
        "private": {"network": {"assign_public_ip": False}},
        "public-ip": new_network("public-ip"),
        "nat": new_network("nat"),
        "none": new_network("none"),
    },
    "zones": {"three": {}, "one": {"network": {"subnets": subnets(1, True)}}, "unnamed": {"network": {"subnets": subnets(2, False)}}},
    "tenancy": {"default": {}, "dedicated": {"network": {"tenancy": "dedicated"}}},
    "endpoints": {"needed": {}, "more": {"network": {"endpoints": True}}},
    "bucket": {
        "own": {},
        "named": {"bucket": {"name": "a-lab-of-ours", "prefix": "team/"}},
        "existing": {"bucket": {"existing": "the-bucket-of-the-institute"}},
    },
    "key": {"none": {}, "some": {"bucket": {"kms_key": KEY}, "logs": {"kms_key": KEY}}},
    "data": {"deleted": {}, "kept": {"keep_data": True}},
    "expiry": {"default": {}, "never": {"bucket": {"expire_days": None}, "logs": {"retention_days": None}}},
    "logs": {"own": {}, "existing": {"logs": {"existing": True}}},
    "instance_role": {
        "own": {},
        "given": {"instance_role": {"name": "ecsInstanceRole", "profile": None}},
        "with a profile": {
            "instance_role": {"name": "ecsInstanceRole", "profile": "arn:aws:iam::123456789012:instance-profile/ecsInstanceRole"}
        },
    },
    "execution_role": {"own": {}, "given": {"execution_role": {"arn": "arn:aws:iam::123456789012:role/ecsTaskExecutionRole"}}},
    "tags": {"none": {}, "most": tags(46)},
    "team": {"none": {}, "some": TEAM},
    "group": {"new": {}, "described before": {"group_description": "cloudknot lab: jobs; nothing comes in"}},
}


def pars_is_possible(values):
    """Returns whether cloudknot accepts the options chosen so far."""
    given = values.get("network") in ("default", "public, unassigned", "private")
    return not given or all(values.get(only, first) == first for only, first in NEW_NETWORK_ONLY.items())


# Options of a new network, with the values that an existing one has as well.
NEW_NETWORK_ONLY = {"zones": "three", "tenancy": "default", "endpoints": "needed"}

# Combinations that users choose; the other options have their defaults.
PARS_TOGETHER = [
    *(
        {"network": network, "endpoints": endpoints, "tenancy": tenancy}
        for network, endpoints, tenancy in product(("public-ip", "nat", "none"), PARS["endpoints"], PARS["tenancy"])
    ),
    {"key": "some", "data": "kept"},
    {"key": "some", "team": "some"},
    {"tags": "most", "network": "nat"},
]
KNOT_TOGETHER = [
    *({"compute": "fargate", "mounts": mounts} for mounts in KNOT["mounts"]),
    *({"compute": "fargate", "secrets": secrets} for secrets in KNOT["secrets"]),
    {"compute": "fargate", "log": "splunk", "secrets": "manager"},
    {"compute": "fargate", "machines": "large", "space": "disk"},
    {"compute": "fargate-spot", "queue": "existing", "secrets": "manager"},
    {"compute": "spot", "queue": "existing", "secrets": "parameters"},
    {"compute": "spot", "architecture": "arm64"},
    {"machines": "gpus", "root": "read-only", "space": "shared memory"},
    {"image": "proxied", "repository": "shared"},
    {"tags": "most", "log": "gelf"},
    {"team": "some", "bucket": "encrypted", "repository": "encrypted"},
]

STACKS = {
    "pars": ("pars-default-vpc", PARS, pars_is_possible, PARS_TOGETHER),
    "knot": ("knot-ec2", KNOT, knot_is_possible, KNOT_TOGETHER),
}


def combinations(options, is_possible, together):
    """Yields combinations of the options' values, in which all possible pairs occur."""
    missing = pairs(options, is_possible)
    for some in together:
        chosen = {name: some.get(name, next(iter(options[name]))) for name in options}
        assert is_possible(chosen), some
        missing -= pairs_in(chosen)
        yield chosen
    while missing:
        chosen = dict(min(missing, key=sorted))
        for name in [name for name in options if name not in chosen]:
            possible = [value for value in options[name] if is_possible({**chosen, name: value})]
            new = lambda value: sum(frozenset([(name, value), other]) in missing for other in chosen.items())
            chosen[name] = max(possible, key=new)
        missing -= pairs_in(chosen)
        yield chosen


def pairs(options, is_possible):
    """Returns all pairs of values of two options that are possible together."""
    both = (dict([one, other]) for one, other in product(values_of(options), repeat=2) if one[0] != other[0])
    return {frozenset(pair.items()) for pair in both if is_possible(pair)}


def values_of(options):
    return [(name, value) for name in options for value in options[name]]


def pairs_in(combination):
    return {frozenset(pair) for pair in product(combination.items(), repeat=2) if pair[0][0] != pair[1][0]}
