//! Checks of names, tags, ARNs and networks whose form AWS would reject, before anything is created. Makes no
//! requests.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::error::{Error, ErrorKind, Result};

/// Maximum number of the user's tags on a resource: AWS allows 50, and two are cloudknot's own.
const TAGS: usize = 48;

/// Numbers of days for which CloudWatch can keep logs.
const RETENTION: [u32; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

/// Prefix lengths of a VPC and its subnets: from /16 to /28.
const PREFIXES: std::ops::RangeInclusive<u8> = 16..=28;

/// Addresses that no machine can have: "this network", loopback, link-local and multicast (RFC 6890).
const NO_VPC: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
];

const DOCKERS_OWN: (Ipv4Addr, u8) = (Ipv4Addr::new(172, 17, 0, 0), 16);

/// Kind of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Pars,
    Knot,
    /// A bucket of S3.
    Bucket,
    /// The path of a role in IAM: `/` or `/team/`.
    RolePath,
    /// An environment variable of a job.
    Variable,
    /// A KMS key, by its ARN.
    Key,
    /// A job queue, by its ARN.
    Queue,
    /// An EFS file system, by its ID.
    FileSystem,
    /// An EFS access point, by its ID.
    AccessPoint,
}

/// Source of the value of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Secret {
    /// ARN of a secret in Secrets Manager, without the name of a key in it.
    Manager(String),
    /// ARN of an SSM parameter.
    Parameter(String),
}

/// Subnets of a new VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Subnets for jobs, one per zone.
    pub(crate) subnets: Vec<String>,
    /// Subnet for a NAT gateway.
    pub(crate) public: String,
}

impl Kind {
    fn what(self) -> &'static str {
        match self {
            Self::Pars => "the name of a Pars",
            Self::Knot => "the name of a Knot",
            Self::Bucket => "the name of a bucket",
            Self::RolePath => "the path of roles",
            Self::Variable => "the name of a variable",
            Self::Key => "a key of KMS",
            Self::Queue => "a job queue",
            Self::FileSystem => "a file system of EFS",
            Self::AccessPoint => "an access point of EFS",
        }
    }

    fn form(self) -> &'static str {
        match self {
            Self::Pars | Self::Knot => "begin with a letter, go on with letters, digits and `-`; 45 characters at most",
            Self::Bucket => "3 to 63 small letters, digits, `-` and `.`, a letter or digit at both ends",
            Self::RolePath => "write `/`, or a path between slashes: `/team/`",
            Self::Variable => "a name without `=` that begins with neither CLOUDKNOT_ nor AWS_BATCH",
            Self::Key => "write its ARN: arn:aws:kms:<region>:<account>:key/<id>",
            Self::Queue => "write its ARN: arn:aws:batch:<region>:<account>:job-queue/<name>",
            Self::FileSystem => "write its id, as in fs-0123456789abcdef0",
            Self::AccessPoint => "write its id, as in fsap-0123456789abcdef0",
        }
    }
}

/// Checks that a name is valid for its kind.
///
/// # Errors
/// If AWS would reject it, or would reject the names that are derived from it.
pub(crate) fn check_name(kind: Kind, name: &str) -> Result<()> {
    let wrong = match kind {
        Kind::Pars | Kind::Knot => own_name(name),
        Kind::Bucket => bucket(name),
        Kind::RolePath => role_path(name),
        Kind::Variable => variable(name),
        Kind::Key => arn(name, "kms", "key/"),
        Kind::Queue => arn(name, "batch", "job-queue/"),
        Kind::FileSystem => of_efs(name, "fs-"),
        Kind::AccessPoint => of_efs(name, "fsap-"),
    };
    wrong.map_or(Ok(()), |wrong| Err(refused(name, kind.what(), wrong, kind.form())))
}

/// Checks that resources can have these tags in addition to cloudknot's own.
///
/// # Errors
/// If AWS would reject a tag, or it is one of cloudknot's own.
pub(crate) fn check_tags(tags: &[(String, String)]) -> Result<()> {
    const FORM: &str =
        "keys of 1 to 128 characters and values of up to 256: letters, digits, spaces and _ . : / = + - @";
    if tags.len() > TAGS {
        let message = format!("failed to take {} tags: a resource of AWS has at most {TAGS} besides ours", tags.len());
        return Err(Error::new(ErrorKind::Config, message).with_hint("leave some out"));
    }
    for (index, (key, value)) in tags.iter().enumerate() {
        let reserved = key.get(..4).is_some_and(|begins| begins.eq_ignore_ascii_case("aws:"));
        let wrong = match (key.chars().count(), value.chars().count()) {
            (0, _) => "its key is empty",
            (129.., _) => "its key is longer than 128 characters",
            (_, 257..) => "its value is longer than 256 characters",
            _ if reserved || key.starts_with("cloudknot:") => {
                "keys that begin with `aws:` or `cloudknot:` are not yours to set"
            }
            _ if !key.chars().chain(value.chars()).all(of_tags) => "it has a character that tags cannot have",
            _ if tags[..index].iter().any(|(before, _)| before == key) => "there are two with this key",
            _ => continue,
        };
        return Err(refused(&format!("{key}={value}"), "a tag", wrong, FORM));
    }
    Ok(())
}

/// Checks that logs can be kept for this number of days.
///
/// # Errors
/// If CloudWatch does not have that number.
pub(crate) fn check_retention(days: u32) -> Result<()> {
    if RETENTION.contains(&days) {
        return Ok(());
    }
    let after = RETENTION.iter().find(|&&known| known > days).or(RETENTION.last()).expect("there are some");
    let all: Vec<String> = RETENTION.iter().map(ToString::to_string).collect();
    let message = format!("failed to keep logs for {days} days: CloudWatch does not have that number");
    Err(Error::new(ErrorKind::Config, message).with_hint(format!("take {after}; there are {}", all.join(", "))))
}

/// Parses the ARN of a secret: `arn:aws:secretsmanager:…:secret:<name>`, which `:<key>::` may follow, or
/// `arn:aws:ssm:…:parameter/<name>`.
///
/// # Errors
/// If it is neither.
pub(crate) fn secret(from: &str) -> Result<Secret> {
    const FORM: &str = "write the ARN of a secret (arn:aws:secretsmanager:<region>:<account>:secret:<name>, with `:<key>::` \
                        behind it for one value of a JSON secret) or of a parameter (arn:aws:ssm:<region>:<account>:parameter/<name>)";
    let failed = |wrong: &str| Err(refused(from, "a secret", wrong, FORM));
    if arn(from, "ssm", "parameter/").is_none() {
        return Ok(Secret::Parameter(from.to_owned()));
    }
    if let Some(wrong) = arn(from, "secretsmanager", "secret:") {
        return failed(wrong);
    }
    // An ARN has six parts and the name. For a single value of the secret, its key, a version stage and a version ID
    // follow.
    let parts: Vec<&str> = from.split(':').collect();
    match parts[7..] {
        [] => Ok(Secret::Manager(from.to_owned())),
        ["", "", ""] => failed("the key is empty"),
        [_, _, _] => Ok(Secret::Manager(parts[..7].join(":"))),
        [_] => failed("behind a key two colons have to follow"),
        _ => failed("it has too many or too few colons"),
    }
}

/// Divides a VPC into one subnet per zone, as large as possible, and a small one.
///
/// # Errors
/// If EC2 does not allow such a VPC, or it is too small.
pub(crate) fn subnets_of(cidr: &str, zones: usize) -> Result<Parts> {
    const FORM: &str = "write a network from /16 to /28 by its first address, as in 10.0.0.0/16";
    let failed = |wrong: &str| refused(cidr, "the network of a VPC", wrong, FORM);
    let net: Ipv4Net = cidr.parse().map_err(|_| failed("it is no network of IPv4"))?;
    if !PREFIXES.contains(&net.prefix_len()) {
        return Err(failed("EC2 has networks from /16 to /28 only"));
    }
    if net.addr() != net.network() {
        return Err(failed(&format!("its first address is {}", net.network())));
    }
    let taken = |(address, prefix): &(Ipv4Addr, u8)| Ipv4Net::new(*address, *prefix).is_ok_and(|no| no.contains(&net));
    if NO_VPC.iter().any(taken) {
        return Err(failed("no machine can have these addresses"));
    }
    // AWS advises against it ("VPC CIDR blocks" of its user guide): a container would look for the network in its own
    // machine.
    if taken(&DOCKERS_OWN) {
        return Err(failed("Docker uses these addresses on the machines that jobs run on"));
    }
    // The number of blocks is a power of two; the last block holds the small subnet.
    let blocks = (zones + 1).next_power_of_two();
    let bits = u8::try_from(blocks.ilog2()).unwrap_or(u8::MAX);
    let length = net.prefix_len().saturating_add(bits);
    if !PREFIXES.contains(&length) {
        let large_enough = PREFIXES.end() - bits.min(12);
        return Err(failed(&format!(
            "it is too small for {zones} zones and a subnet more: take a /{large_enough} or larger"
        )));
    }
    let all: Vec<Ipv4Net> = net.subnets(length).expect("it is longer").collect();
    let last = all.last().expect("there are at least two").network();
    let public = Ipv4Net::new(last, *PREFIXES.end()).expect("it is a length");
    Ok(Parts { subnets: all[..zones].iter().map(ToString::to_string).collect(), public: public.to_string() })
}

fn refused(value: &str, what: &str, wrong: &str, form: &str) -> Error {
    Error::new(ErrorKind::Config, format!("failed to take `{value}` as {what}: {wrong}")).with_hint(form)
}

fn own_name(name: &str) -> Option<&'static str> {
    let known = |c: char| c.is_ascii_alphanumeric() || c == '-';
    match name {
        "" => Some("it is empty"),
        _ if !name.starts_with(|c: char| c.is_ascii_alphabetic()) => Some("it does not begin with a letter"),
        _ if !name.chars().all(known) => Some("it has other characters than letters, digits and `-`"),
        // ECR rejects such a repository.
        _ if name.ends_with('-') => Some("it ends with `-`"),
        _ if name.len() > 45 => Some("it is longer than 45 characters"),
        _ => None,
    }
}

/// Returns the rule of S3 that a bucket name violates ("General purpose bucket naming rules" of its user guide).
fn bucket(name: &str) -> Option<&'static str> {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let at_an_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let beginnings = ["xn--", "sthree-", "amzn-s3-demo-"];
    let ends = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];
    match name {
        _ if !(3..=63).contains(&name.len()) => Some("it does not have 3 to 63 characters"),
        _ if !name.chars().all(known) => Some("it has other characters than small letters, digits, `-` and `.`"),
        _ if !name.starts_with(at_an_end) || !name.ends_with(at_an_end) => Some("it begins or ends with `-` or `.`"),
        _ if name.contains("..") => Some("it has two dots in a row"),
        _ if name.parse::<Ipv4Addr>().is_ok() => Some("it is an address"),
        _ if beginnings.iter().any(|begins| name.starts_with(begins)) => Some("S3 keeps this beginning for itself"),
        _ if ends.iter().any(|end| name.ends_with(end)) => Some("S3 keeps this ending for itself"),
        _ => None,
    }
}

fn role_path(path: &str) -> Option<&'static str> {
    match path {
        "/" => None,
        _ if path.len() < 3 || !path.starts_with('/') || !path.ends_with('/') => Some("it is not between slashes"),
        _ if !path.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) => {
            Some("it has a space or another character that IAM refuses")
        }
        _ if path.len() > 512 => Some("it is longer than 512 characters"),
        _ => None,
    }
}

fn variable(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("it is empty"),
        _ if name.contains(['=', '\0']) => Some("it has a character that no variable can have"),
        _ if name.starts_with("AWS_BATCH") => Some("Batch keeps names that begin with AWS_BATCH for itself"),
        _ if name.starts_with("CLOUDKNOT_") => Some("names that begin with CLOUDKNOT_ are cloudknot's own"),
        _ => None,
    }
}

/// Returns the reason why a text is not an ARN of this service that has a region, an account, and a resource that
/// begins with `resource` and continues.
fn arn(text: &str, service: &str, resource: &str) -> Option<&'static str> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let [begins, partition, of, region, account, named] = parts[..] else {
        return Some("it is no ARN");
    };
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let name = named.strip_prefix(resource);
    match () {
        () if begins != "arn" || !partition.starts_with("aws") => Some("it is no ARN"),
        () if of != service => Some("it is the ARN of something of another service"),
        () if region.is_empty() || !is_account => Some("its ARN lacks the region or the account of 12 digits"),
        () if name.is_none() => Some("it is the ARN of something else of this service"),
        () if name.is_some_and(|name| name.is_empty() || name.starts_with(':')) => {
            Some("its ARN lacks the name at its end")
        }
        () if text.contains(char::is_whitespace) => Some("there is a space in it"),
        () => None,
    }
}

fn of_efs(id: &str, begins: &str) -> Option<&'static str> {
    let hex = id.strip_prefix(begins).unwrap_or_default();
    let known = (8..=40).contains(&hex.len()) && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (!known).then_some("it is no such id")
}

fn of_tags(c: char) -> bool {
    c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the part of the message after the colon, or `None` if the name is valid.
    fn wrong(kind: Kind, name: &str) -> Option<String> {
        let error = check_name(kind, name).err()?;
        assert!(error.hint().is_some());
        let begins = format!("failed to take `{name}` as {}: ", kind.what());
        Some(error.to_string().strip_prefix(&begins).unwrap_or_else(|| panic!("{error}")).to_owned())
    }

    fn takes(kind: Kind, names: &[&str]) {
        for name in names {
            assert_eq!(wrong(kind, name), None, "{name}");
        }
    }

    fn refuses(kind: Kind, names: &[(&str, &str)]) {
        for (name, why) in names {
            let found = wrong(kind, name);
            assert!(found.as_ref().is_some_and(|found| found.contains(why)), "{name}: {found:?}");
        }
    }

    #[test]
    fn names_of_knots_begin_with_a_letter() {
        let (longest, longer) = ("a".repeat(45), "a".repeat(46));
        takes(Kind::Knot, &["a", "sweep", "Sweep-2", "a--b", &longest]);
        let bad = [
            ("", "is empty"),
            ("2nd", "begin with a letter"),
            ("-a", "begin with a letter"),
            ("a_b", "other characters"),
            ("größe", "other characters"),
            ("a-", "ends with"),
            (&*longer, "longer than 45"),
        ];
        refuses(Kind::Knot, &bad);
        let error = check_name(Kind::Pars, "9").unwrap_err();
        assert_eq!(error.to_string(), "failed to take `9` as the name of a Pars: it does not begin with a letter");
        assert_eq!(error.kind(), ErrorKind::Config);
    }

    #[test]
    fn names_of_buckets_follow_s3s_rules() {
        let (longest, longer) = ("a".repeat(63), "a".repeat(64));
        takes(Kind::Bucket, &["lab", "1a2", "my.lab-data", "1.2.3.4.5", &longest]);
        let bad = [
            ("ab", "3 to 63"),
            (&*longer, "3 to 63"),
            ("Lab", "small letters"),
            ("my_lab", "small letters"),
            ("-lab", "begins or ends"),
            ("lab.", "begins or ends"),
            ("my..lab", "two dots"),
            ("10.0.0.1", "an address"),
            ("xn--lab", "beginning"),
            ("sthree-lab", "beginning"),
            ("lab-s3alias", "ending"),
            ("lab--x-s3", "ending"),
        ];
        refuses(Kind::Bucket, &bad);
    }

    #[test]
    fn paths_and_variables_are_checked() {
        takes(Kind::RolePath, &["/", "/team/", "/a/b/"]);
        let long = format!("/{}/", "a".repeat(511));
        let bad = [
            ("", "slashes"),
            ("team", "slashes"),
            ("/team", "slashes"),
            ("//", "slashes"),
            ("/a b/", "a space"),
            (&*long, "512"),
        ];
        refuses(Kind::RolePath, &bad);
        takes(Kind::Variable, &["API_KEY", "aws_batch", "AWS_REGION"]);
        let bad =
            [("", "empty"), ("A=B", "character"), ("AWS_BATCH_X", "Batch keeps"), ("CLOUDKNOT_RUN", "cloudknot's own")];
        refuses(Kind::Variable, &bad);
    }

    #[test]
    fn arns_are_of_what_they_should_be() {
        let key = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab";
        takes(Kind::Key, &[key, "arn:aws-cn:kms:cn-north-1:123456789012:key/mrk-1"]);
        let queue = "arn:aws:batch:eu-central-1:123456789012:job-queue/lab";
        takes(Kind::Queue, &[queue, "arn:aws-us-gov:batch:us-gov-west-1:123456789012:job-queue/a_b"]);
        let bad = [
            ("lab", "no ARN"),
            ("arn:aws:kms", "no ARN"),
            ("urn:aws:kms:r:123456789012:key/1", "no ARN"),
            (queue, "another service"),
            ("arn:aws:kms:eu-central-1:123456789012:alias/lab", "something else"),
            ("arn:aws:kms::123456789012:key/1", "lacks the region"),
            ("arn:aws:kms:eu-central-1:1234:key/1", "12 digits"),
            ("arn:aws:kms:eu-central-1:123456789012:key/", "at its end"),
            ("arn:aws:kms:eu-central-1:123456789012:key/1 ", "a space"),
        ];
        refuses(Kind::Key, &bad);
        refuses(
            Kind::Queue,
            &[(key, "another service"), ("arn:aws:batch:r:123456789012:job-definition/a", "something else")],
        );
        takes(Kind::FileSystem, &["fs-01234567", "fs-0123456789abcdef0"]);
        takes(Kind::AccessPoint, &["fsap-0123456789abcdef0"]);
        refuses(Kind::FileSystem, &[("fs-0123", "id"), ("fs-0123456X", "id"), ("fsap-01234567", "id"), ("", "id")]);
    }

    #[test]
    fn secrets_are_parted_from_their_keys() {
        let of = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:lab-AbCdEf";
        let manager = Secret::Manager(of.to_owned());
        assert_eq!(secret(of).unwrap(), manager);
        assert_eq!(secret(&format!("{of}:password::")).unwrap(), manager);
        assert_eq!(secret(&format!("{of}:password:AWSCURRENT:")).unwrap(), manager);
        assert_eq!(secret(&format!("{of}::AWSPREVIOUS:")).unwrap(), manager);
        let parameter = "arn:aws:ssm:eu-central-1:123456789012:parameter/lab/token";
        assert_eq!(secret(parameter).unwrap(), Secret::Parameter(parameter.to_owned()));
        let check = |from: &str, why: &str| {
            let error = secret(from).unwrap_err();
            assert!(error.to_string().ends_with(why), "{error}");
        };
        check(&format!("{of}:password"), "two colons have to follow");
        check(&format!("{of}:a:b"), "too many or too few colons");
        check(&format!("{of}:a:b:c:d"), "too many or too few colons");
        check(&format!("{of}:::"), "the key is empty");
        check("arn:aws:secretsmanager:eu-central-1:123456789012:secret:", "lacks the name at its end");
        check("arn:aws:ssm:eu-central-1:123456789012:document/lab", "another service");
        check("API_KEY", "no ARN");
    }

    #[test]
    fn tags_are_what_aws_takes_and_not_ours() {
        let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let takes = |tags: &[(String, String)]| check_tags(tags).unwrap();
        takes(&[]);
        takes(&[tag("Owner", "Ada Lovelace"), tag("Kostenstelle", "Größe/7 @ a+b"), tag("Name", ""), tag("Aw", "x")]);
        takes(&[tag(&"k".repeat(128), &"v".repeat(256))]);
        let many = |number: usize| (0..number).map(|n| tag(&n.to_string(), "")).collect::<Vec<_>>();
        takes(&many(48));
        let check = |tags: &[(String, String)], why: &str| {
            let error = check_tags(tags).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        check(&many(49), "at most 48");
        check(&[tag("", "x")], "its key is empty");
        check(&[tag(&"k".repeat(129), "")], "longer than 128");
        check(&[tag("k", &"v".repeat(257))], "longer than 256");
        check(&[tag("AWS:x", "")], "not yours");
        check(&[tag("cloudknot:pars", "")], "not yours");
        check(&[tag("a", "b?")], "a character");
        check(
            &[tag("a", "1"), tag("b", ""), tag("a", "2")],
            "failed to take `a=2` as a tag: there are two with this key",
        );
    }

    #[test]
    fn logs_are_kept_for_a_number_that_there_is() {
        for days in [1, 30, 3653] {
            check_retention(days).unwrap();
        }
        for (days, instead) in [(0, "take 1;"), (2, "take 3;"), (31, "take 60;"), (9999, "take 3653;")] {
            assert!(check_retention(days).unwrap_err().hint().unwrap().starts_with(instead), "{days}");
        }
    }

    #[test]
    fn a_network_is_divided_among_the_zones() {
        let check = |cidr: &str, zones, subnets: &[&str], public: &str| {
            let parts = subnets_of(cidr, zones).unwrap();
            assert_eq!(
                (&parts.subnets[..], &*parts.public),
                (&subnets.iter().map(ToString::to_string).collect::<Vec<_>>()[..], public)
            );
        };
        check("10.0.0.0/16", 1, &["10.0.0.0/17"], "10.0.128.0/28");
        check("10.0.0.0/16", 3, &["10.0.0.0/18", "10.0.64.0/18", "10.0.128.0/18"], "10.0.192.0/28");
        let of_four = ["10.0.0.0/19", "10.0.32.0/19", "10.0.64.0/19", "10.0.96.0/19"];
        check("10.0.0.0/16", 4, &of_four, "10.0.224.0/28");
        check("192.168.1.0/26", 3, &["192.168.1.0/28", "192.168.1.16/28", "192.168.1.32/28"], "192.168.1.48/28");
        // A network that is not private is allowed.
        check("8.8.0.0/24", 1, &["8.8.0.0/25"], "8.8.0.128/28");
    }

    #[test]
    fn a_network_that_ec2_does_not_have_is_refused() {
        let check = |cidr: &str, zones, why: &str| {
            let error = subnets_of(cidr, zones).unwrap_err().to_string();
            let expected = format!("failed to take `{cidr}` as the network of a VPC: {why}");
            assert_eq!(error, expected);
        };
        check("10.0.0.0", 3, "it is no network of IPv4");
        check("fd00::/56", 3, "it is no network of IPv4");
        check("10.0.0.0/15", 3, "EC2 has networks from /16 to /28 only");
        check("10.0.0.0/29", 3, "EC2 has networks from /16 to /28 only");
        check("10.0.0.1/16", 3, "its first address is 10.0.0.0");
        check("127.0.0.0/16", 3, "no machine can have these addresses");
        check("239.1.0.0/16", 3, "no machine can have these addresses");
        check("172.17.128.0/20", 3, "Docker uses these addresses on the machines that jobs run on");
        check("10.0.0.0/27", 3, "it is too small for 3 zones and a subnet more: take a /26 or larger");
        check("10.0.0.0/28", 2, "it is too small for 2 zones and a subnet more: take a /26 or larger");
    }
}
