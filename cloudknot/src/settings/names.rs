//! Checks of names, tags and ARNs whose form AWS would reject, before anything is created. Makes no requests.

use std::net::Ipv4Addr;

use crate::error::{Error, ErrorKind, Result};

/// Maximum number of the user's tags on a resource: AWS allows 50, and two are cloudknot's own.
const TAGS: usize = 48;

/// Numbers of days for which CloudWatch can keep logs.
const RETENTION: [u32; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

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

impl Kind {
    fn what(self) -> &'static str {
        match self {
            Self::Pars => "Pars name",
            Self::Knot => "Knot name",
            Self::Bucket => "bucket name",
            Self::RolePath => "role path",
            Self::Variable => "variable name",
            Self::Key => "KMS key",
            Self::Queue => "job queue",
            Self::FileSystem => "EFS file system",
            Self::AccessPoint => "EFS access point",
        }
    }

    fn form(self) -> &'static str {
        match self {
            Self::Pars | Self::Knot => {
                "start with a letter, followed by letters, digits and `-`; at most 45 characters"
            }
            Self::Bucket => "use 3 to 63 lower-case letters, digits, `-` and `.`, with a letter or digit at both ends",
            Self::RolePath => "write `/`, or a path between slashes: `/team/`",
            Self::Variable => "use a name without `=` that starts with neither CLOUDKNOT_ nor AWS_BATCH",
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
/// Returns an error if AWS would reject it, or would reject the names that are derived from it.
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
/// Returns an error if AWS would reject a tag, or it is one of cloudknot's own.
pub(crate) fn check_tags(tags: &[(String, String)]) -> Result<()> {
    const FORM: &str =
        "keys of 1 to 128 characters and values of up to 256: letters, digits, spaces and _ . : / = + - @";
    if tags.len() > TAGS {
        let message = format!("too many tags: {} of at most {TAGS} besides those of cloudknot", tags.len());
        return Err(Error::new(ErrorKind::Config, message).with_hint("leave some out"));
    }
    for (index, (key, value)) in tags.iter().enumerate() {
        let reserved = key.get(..4).is_some_and(|begins| begins.eq_ignore_ascii_case("aws:"));
        let wrong = match (key.chars().count(), value.chars().count()) {
            (0, _) => "the key must not be empty",
            (129.., _) => "the key must have at most 128 characters",
            (_, 257..) => "the value must have at most 256 characters",
            _ if reserved || key.starts_with("cloudknot:") => {
                "keys that start with `aws:` or `cloudknot:` are reserved"
            }
            _ if !key.chars().chain(value.chars()).all(of_tags) => "must consist of characters that tags can have",
            _ if tags[..index].iter().any(|(before, _)| before == key) => "the key must be unique",
            _ => continue,
        };
        return Err(refused(&format!("{key}={value}"), "tag", wrong, FORM));
    }
    Ok(())
}

/// Checks that logs can be kept for this number of days.
///
/// # Errors
/// Returns an error if CloudWatch does not have that number.
pub(crate) fn check_retention(days: u32) -> Result<()> {
    if RETENTION.contains(&days) {
        return Ok(());
    }
    let after = RETENTION.iter().find(|&&known| known > days).or(RETENTION.last()).expect("there are some");
    let all: Vec<String> = RETENTION.iter().map(ToString::to_string).collect();
    let message = format!("invalid `log-retention`: CloudWatch does not support {days} days");
    Err(Error::new(ErrorKind::Config, message)
        .with_hint(format!("use {after}; the supported values are {}", all.join(", "))))
}

/// Parses the ARN of a secret: `arn:aws:secretsmanager:…:secret:<name>`, which `:<key>::` may follow, or
/// `arn:aws:ssm:…:parameter/<name>`.
///
/// # Errors
/// Returns an error if it is neither.
pub(crate) fn secret(from: &str) -> Result<Secret> {
    const FORM: &str = "write the ARN of a secret (arn:aws:secretsmanager:<region>:<account>:secret:<name>, followed by \
    `:<key>::` for one value of a JSON secret) or of a parameter (arn:aws:ssm:<region>:<account>:parameter/<name>)";
    let failed = |wrong: &str| Err(refused(from, "secret", wrong, FORM));
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
        ["", "", ""] => failed("the JSON key must not be empty"),
        [_, _, _] => Ok(Secret::Manager(parts[..7].join(":"))),
        [_] => failed("two colons must follow the JSON key"),
        _ => failed("must have the colons of an ARN"),
    }
}

pub(super) fn refused(value: &str, what: &str, wrong: &str, form: &str) -> Error {
    Error::new(ErrorKind::Config, format!("invalid {what} `{value}`: {wrong}")).with_hint(form)
}

fn own_name(name: &str) -> Option<&'static str> {
    let known = |c: char| c.is_ascii_alphanumeric() || c == '-';
    match name {
        "" => Some("must not be empty"),
        _ if !name.starts_with(|c: char| c.is_ascii_alphabetic()) => Some("must start with a letter"),
        _ if !name.chars().all(known) => Some("must consist of letters, digits and `-`"),
        // ECR rejects such a repository.
        _ if name.ends_with('-') => Some("must not end with `-`"),
        _ if name.len() > 45 => Some("must have at most 45 characters"),
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
        _ if !(3..=63).contains(&name.len()) => Some("must have 3 to 63 characters"),
        _ if !name.chars().all(known) => Some("must consist of lower-case letters, digits, `-` and `.`"),
        _ if !name.starts_with(at_an_end) || !name.ends_with(at_an_end) => {
            Some("must start and end with a letter or digit")
        }
        _ if name.contains("..") => Some("must not have two dots in a row"),
        _ if name.parse::<Ipv4Addr>().is_ok() => Some("must not be an IP address"),
        _ if beginnings.iter().any(|begins| name.starts_with(begins)) => Some("S3 reserves this prefix"),
        _ if ends.iter().any(|end| name.ends_with(end)) => Some("S3 reserves this suffix"),
        _ => None,
    }
}

fn role_path(path: &str) -> Option<&'static str> {
    match path {
        "/" => None,
        _ if path.len() < 3 || !path.starts_with('/') || !path.ends_with('/') => {
            Some("must start and end with a slash")
        }
        _ if !path.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) => {
            Some("must consist of printable ASCII characters without spaces")
        }
        _ if path.len() > 512 => Some("must have at most 512 characters"),
        _ => None,
    }
}

fn variable(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("must not be empty"),
        _ if name.contains(['=', '\0']) => Some("must not contain `=` or a null character"),
        _ if name.starts_with("AWS_BATCH") => Some("AWS Batch reserves the prefix AWS_BATCH"),
        _ if name.starts_with("CLOUDKNOT_") => Some("cloudknot reserves the prefix CLOUDKNOT_"),
        _ => None,
    }
}

/// Returns the reason why a text is not an ARN of this service that has a region, an account, and a resource that
/// begins with `resource` and continues.
fn arn(text: &str, service: &str, resource: &str) -> Option<&'static str> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let [begins, partition, of, region, account, named] = parts[..] else {
        return Some("must be an ARN");
    };
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let name = named.strip_prefix(resource);
    match () {
        () if begins != "arn" || !partition.starts_with("aws") => Some("must be an ARN"),
        () if of != service => Some("must be an ARN of the right service"),
        () if region.is_empty() || !is_account => Some("the ARN must have a region and an account of 12 digits"),
        () if name.is_none() => Some("must be the ARN of the right kind of resource"),
        () if name.is_some_and(|name| name.is_empty() || name.starts_with(':')) => Some("the ARN must end with a name"),
        () if text.contains(char::is_whitespace) => Some("must not contain spaces"),
        () => None,
    }
}

fn of_efs(id: &str, begins: &str) -> Option<&'static str> {
    let hex = id.strip_prefix(begins).unwrap_or_default();
    let known = (8..=40).contains(&hex.len()) && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (!known).then_some("must be an ID of this kind")
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
        let begins = format!("invalid {} `{name}`: ", kind.what());
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
            ("", "must not be empty"),
            ("2nd", "start with a letter"),
            ("-a", "start with a letter"),
            ("a_b", "must consist of"),
            ("größe", "must consist of"),
            ("a-", "must not end with"),
            (&*longer, "at most 45"),
        ];
        refuses(Kind::Knot, &bad);
        let error = check_name(Kind::Pars, "9").unwrap_err();
        assert_eq!(error.to_string(), "invalid Pars name `9`: must start with a letter");
        assert_eq!(error.kind(), ErrorKind::Config);
    }

    #[test]
    fn names_of_buckets_follow_s3s_rules() {
        let (longest, longer) = ("a".repeat(63), "a".repeat(64));
        takes(Kind::Bucket, &["lab", "1a2", "my.lab-data", "1.2.3.4.5", &longest]);
        let bad = [
            ("ab", "3 to 63"),
            (&*longer, "3 to 63"),
            ("Lab", "lower-case letters"),
            ("my_lab", "lower-case letters"),
            ("-lab", "start and end"),
            ("lab.", "start and end"),
            ("my..lab", "two dots"),
            ("10.0.0.1", "an IP address"),
            ("xn--lab", "prefix"),
            ("sthree-lab", "prefix"),
            ("lab-s3alias", "suffix"),
            ("lab--x-s3", "suffix"),
        ];
        refuses(Kind::Bucket, &bad);
    }

    #[test]
    fn paths_and_variables_are_checked() {
        takes(Kind::RolePath, &["/", "/team/", "/a/b/"]);
        let long = format!("/{}/", "a".repeat(511));
        let bad = [
            ("", "a slash"),
            ("team", "a slash"),
            ("/team", "a slash"),
            ("//", "a slash"),
            ("/a b/", "without spaces"),
            (&*long, "512"),
        ];
        refuses(Kind::RolePath, &bad);
        takes(Kind::Variable, &["API_KEY", "aws_batch", "AWS_REGION"]);
        let bad = [
            ("", "empty"),
            ("A=B", "`=`"),
            ("AWS_BATCH_X", "AWS Batch reserves"),
            ("CLOUDKNOT_RUN", "cloudknot reserves"),
        ];
        refuses(Kind::Variable, &bad);
    }

    #[test]
    fn arns_must_match_service_and_resource() {
        let key = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab";
        takes(Kind::Key, &[key, "arn:aws-cn:kms:cn-north-1:123456789012:key/mrk-1"]);
        let queue = "arn:aws:batch:eu-central-1:123456789012:job-queue/lab";
        takes(Kind::Queue, &[queue, "arn:aws-us-gov:batch:us-gov-west-1:123456789012:job-queue/a_b"]);
        let bad = [
            ("lab", "must be an ARN"),
            ("arn:aws:kms", "must be an ARN"),
            ("urn:aws:kms:r:123456789012:key/1", "must be an ARN"),
            (queue, "the right service"),
            ("arn:aws:kms:eu-central-1:123456789012:alias/lab", "the right kind of resource"),
            ("arn:aws:kms::123456789012:key/1", "must have a region"),
            ("arn:aws:kms:eu-central-1:1234:key/1", "12 digits"),
            ("arn:aws:kms:eu-central-1:123456789012:key/", "must end with a name"),
            ("arn:aws:kms:eu-central-1:123456789012:key/1 ", "spaces"),
        ];
        refuses(Kind::Key, &bad);
        refuses(
            Kind::Queue,
            &[
                (key, "the right service"),
                ("arn:aws:batch:r:123456789012:job-definition/a", "the right kind of resource"),
            ],
        );
        takes(Kind::FileSystem, &["fs-01234567", "fs-0123456789abcdef0"]);
        takes(Kind::AccessPoint, &["fsap-0123456789abcdef0"]);
        refuses(Kind::FileSystem, &[("fs-0123", "ID"), ("fs-0123456X", "ID"), ("fsap-01234567", "ID"), ("", "ID")]);
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
        check(&format!("{of}:password"), "two colons must follow the JSON key");
        check(&format!("{of}:a:b"), "must have the colons of an ARN");
        check(&format!("{of}:a:b:c:d"), "must have the colons of an ARN");
        check(&format!("{of}:::"), "the JSON key must not be empty");
        check("arn:aws:secretsmanager:eu-central-1:123456789012:secret:", "the ARN must end with a name");
        check("arn:aws:ssm:eu-central-1:123456789012:document/lab", "the right service");
        check("API_KEY", "must be an ARN");
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
        check(&[tag("", "x")], "the key must not be empty");
        check(&[tag(&"k".repeat(129), "")], "at most 128");
        check(&[tag("k", &"v".repeat(257))], "at most 256");
        check(&[tag("AWS:x", "")], "are reserved");
        check(&[tag("cloudknot:pars", "")], "are reserved");
        check(&[tag("a", "b?")], "characters that tags can have");
        check(&[tag("a", "1"), tag("b", ""), tag("a", "2")], "invalid tag `a=2`: the key must be unique");
    }

    #[test]
    fn log_retention_must_be_supported() {
        for days in [1, 30, 3653] {
            check_retention(days).unwrap();
        }
        for (days, instead) in [(0, "use 1;"), (2, "use 3;"), (31, "use 60;"), (9999, "use 3653;")] {
            assert!(check_retention(days).unwrap_err().hint().unwrap().starts_with(instead), "{days}");
        }
    }
}
