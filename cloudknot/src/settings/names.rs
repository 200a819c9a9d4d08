//! Checks of names, tags and ARNs whose form AWS would reject, before anything is created. Makes no requests.

use std::net::Ipv4Addr;

use crate::error::{Error, ErrorKind, Result};

/// Maximum number of the user's tags on a resource: AWS allows 50, and two are cloudknot's own.
const MAX_TAGS: usize = 48;
/// Maximum number of the user's tags of a Knot: a job has those of its definition and two of its own, and AWS Batch fails a job with
/// more than 50.
const MAX_KNOT_TAGS: usize = 46;

/// Numbers of days for which CloudWatch can keep logs.
const RETENTION: [u32; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

/// Kind of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Pars,
    Knot,
    /// An S3 bucket.
    Bucket,
    /// The path of an IAM role: `/` or `/team/`.
    RolePath,
    /// An environment variable of a job.
    Variable,
    /// A KMS key, by its ARN.
    Key,
    /// A job queue, by its ARN.
    Queue,
    /// The share of a queue that jobs belong to.
    Share,
    /// A subnet, by its ID.
    Subnet,
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
    fn label(self) -> &'static str {
        match self {
            Self::Pars => "Pars name",
            Self::Knot => "Knot name",
            Self::Bucket => "bucket name",
            Self::RolePath => "role path",
            Self::Variable => "variable name",
            Self::Key => "KMS key",
            Self::Queue => "job queue",
            Self::Share => "share identifier",
            Self::Subnet => "subnet",
            Self::FileSystem => "EFS file system",
            Self::AccessPoint => "EFS access point",
        }
    }

    fn form(self) -> &'static str {
        match self {
            Self::Pars | Self::Knot => {
                "start with a letter, followed by letters (`a` to `z`), digits and `-`; at most 45 characters"
            }
            Self::Bucket => "use 3 to 63 lower-case letters, digits, `-` and `.`, with a letter or digit at both ends",
            Self::RolePath => "write `/`, or a path between slashes: `/team/`",
            Self::Variable => "use a name without `=` that starts with neither CLOUDKNOT_ nor AWS_BATCH",
            Self::Key => "write its ARN: arn:aws:kms:<region>:<account>:key/<id>",
            Self::Queue => "write its ARN: arn:aws:batch:<region>:<account>:job-queue/<name>",
            Self::Share => "use 1 to 255 letters and digits; an asterisk may follow",
            Self::Subnet => "write its ID, as in subnet-0123456789abcdef0",
            Self::FileSystem => "write its ID, as in fs-0123456789abcdef0",
            Self::AccessPoint => "write its ID, as in fsap-0123456789abcdef0",
        }
    }
}

/// Checks that a name is valid for its kind.
///
/// # Errors
/// Returns an error if AWS would reject it, or would reject the names that are derived from it.
pub(crate) fn check_name(kind: Kind, name: &str) -> Result<()> {
    let problem = match kind {
        Kind::Pars | Kind::Knot => stack_name_problem(name),
        Kind::Bucket => bucket(name),
        Kind::RolePath => role_path(name),
        Kind::Variable => variable(name),
        Kind::Key => arn(name, "kms", "key/"),
        Kind::Queue => arn(name, "batch", "job-queue/"),
        Kind::Share => share(name),
        Kind::Subnet => resource_id(name, "subnet-"),
        Kind::FileSystem => resource_id(name, "fs-"),
        Kind::AccessPoint => resource_id(name, "fsap-"),
    };
    problem.map_or(Ok(()), |problem| Err(refused(name, kind.label(), problem, kind.form())))
}

/// Checks that resources can have these tags in addition to cloudknot's own.
///
/// # Errors
/// Returns an error if AWS would reject a tag, or it is one of cloudknot's own.
pub(crate) fn check_tags(tags: &[(String, String)]) -> Result<()> {
    const FORM: &str =
        "keys of 1 to 128 characters and values of up to 256: letters, digits, spaces and _ . : / = + - @";
    check_number_of_tags(tags.len(), MAX_TAGS)?;
    for (index, (key, value)) in tags.iter().enumerate() {
        let reserved = key.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:"));
        let problem = match (key.chars().count(), value.chars().count()) {
            (0, _) => "the key must not be empty",
            (129.., _) => "the key must have at most 128 characters",
            (_, 257..) => "the value must have at most 256 characters",
            _ if reserved || key.starts_with("cloudknot:") => {
                "the key must not start with `aws:` or `cloudknot:`, which are reserved"
            }
            _ if !key.chars().chain(value.chars()).all(is_tag_char) => "must consist of characters that tags can have",
            _ if tags[..index].iter().any(|(earlier, _)| earlier == key) => "the key must be unique",
            _ => continue,
        };
        return Err(refused(&format!("{key}={value}"), "tag", problem, FORM));
    }
    Ok(())
}

/// Checks that a Knot can have these tags: its jobs have them, and tags of their own.
///
/// # Errors
/// Returns the errors of [`check_tags`].
pub(crate) fn check_knot_tags(tags: &[(String, String)]) -> Result<()> {
    check_number_of_tags(tags.len(), MAX_KNOT_TAGS)?;
    check_tags(tags)
}

/// Checks that the jobs of a run can have the tags of the run and those of its Knot.
///
/// # Errors
/// Returns the errors of [`check_tags`], or an error if there are too many.
pub(crate) fn check_run_tags(of_knot: usize, tags: &[(String, String)]) -> Result<()> {
    if of_knot + tags.len() <= MAX_KNOT_TAGS {
        return check_tags(tags);
    }
    let (run, all) = (tags.len(), of_knot + tags.len());
    let message = format!(
        "cannot submit: a job has {all} tags, {run} of the run and {of_knot} of its Knot; it can have {MAX_KNOT_TAGS} besides those \
         of cloudknot"
    );
    Err(Error::new(ErrorKind::Config, message).with_hint("remove some from the run (`.tag(..)`), or from the Knot"))
}

fn check_number_of_tags(number: usize, most: usize) -> Result<()> {
    if number <= most {
        return Ok(());
    }
    let message = format!("invalid tags: {number} besides those of cloudknot; must be at most {most}");
    Err(Error::new(ErrorKind::Config, message).with_hint("remove some"))
}

/// Checks that logs can be kept for this number of days.
///
/// # Errors
/// Returns an error if CloudWatch does not have that number.
pub(crate) fn check_retention(days: u32) -> Result<()> {
    if RETENTION.contains(&days) {
        return Ok(());
    }
    let next =
        RETENTION.iter().find(|&&supported| supported > days).or(RETENTION.last()).expect("`RETENTION` is not empty");
    let all: Vec<String> = RETENTION.iter().map(ToString::to_string).collect();
    let message = format!("invalid `log-retention`: CloudWatch does not support {days} days");
    Err(Error::new(ErrorKind::Config, message)
        .with_hint(format!("use {next}; the supported values are {}", all.join(", "))))
}

/// Parses the ARN of a secret: `arn:aws:secretsmanager:…:secret:<name>`, which `:<key>::` may follow, or
/// `arn:aws:ssm:…:parameter/<name>`.
///
/// # Errors
/// Returns an error if it is neither.
pub(crate) fn secret(value: &str) -> Result<Secret> {
    const FORM: &str = "write the ARN of a secret (arn:aws:secretsmanager:<region>:<account>:secret:<name>, followed by \
    `:<key>::` for one value of a JSON secret) or of a parameter (arn:aws:ssm:<region>:<account>:parameter/<name>)";
    let failed = |problem: &str| Err(refused(value, "secret", problem, FORM));
    if arn(value, "ssm", "parameter/").is_none() {
        return Ok(Secret::Parameter(value.to_owned()));
    }
    if let Some(problem) = arn(value, "secretsmanager", "secret:") {
        return failed(problem);
    }
    // An ARN has six parts and the name. For a single value of the secret, its key, a version stage and a version ID
    // follow.
    let parts: Vec<&str> = value.split(':').collect();
    match parts[7..] {
        [] => Ok(Secret::Manager(value.to_owned())),
        ["", "", ""] => failed("the JSON key must not be empty"),
        [_, _, _] => Ok(Secret::Manager(parts[..7].join(":"))),
        [_] => failed("two colons must follow the JSON key"),
        _ => failed("must have the colons of an ARN"),
    }
}

pub(super) fn refused(value: &str, label: &str, problem: &str, form: &str) -> Error {
    Error::new(ErrorKind::Config, format!("invalid {label} `{value}`: {problem}")).with_hint(form)
}

fn stack_name_problem(name: &str) -> Option<&'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
    match name {
        "" => Some("must not be empty"),
        _ if !name.starts_with(|c: char| c.is_ascii_alphabetic()) => Some("must start with a letter"),
        _ if !name.chars().all(allowed) => {
            Some("must consist of the letters `a` to `z`, in either case, digits and `-`")
        }
        // ECR rejects such a repository.
        _ if name.ends_with('-') => Some("must not end with `-`"),
        _ if name.len() > 45 => Some("must have at most 45 characters"),
        _ => None,
    }
}

/// Returns the S3 rule that a bucket name violates ("General purpose bucket naming rules" in the S3 user guide).
fn bucket(name: &str) -> Option<&'static str> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let prefixes = ["xn--", "sthree-", "amzn-s3-demo-"];
    let suffixes = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];
    match name {
        _ if !(3..=63).contains(&name.len()) => Some("must have 3 to 63 characters"),
        _ if !name.chars().all(allowed) => Some("must consist of lower-case letters, digits, `-` and `.`"),
        _ if !name.starts_with(alphanumeric) || !name.ends_with(alphanumeric) => {
            Some("must start and end with a letter or digit")
        }
        _ if name.contains("..") => Some("must not have two dots in a row"),
        _ if name.parse::<Ipv4Addr>().is_ok() => Some("must not be an IP address"),
        _ if prefixes.iter().any(|prefix| name.starts_with(prefix)) => {
            Some("must not start with a prefix that S3 reserves")
        }
        _ if suffixes.iter().any(|suffix| name.ends_with(suffix)) => {
            Some("must not end with a suffix that S3 reserves")
        }
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
        _ if name.starts_with("AWS_BATCH") => Some("must not start with AWS_BATCH, which AWS Batch reserves"),
        _ if name.starts_with("CLOUDKNOT_") => Some("must not start with CLOUDKNOT_, which cloudknot reserves"),
        _ => None,
    }
}

/// Returns the reason why a string is not an ARN of this service that has a region, an account, and a resource that
/// starts with `resource` and continues.
fn arn(text: &str, service: &str, resource: &str) -> Option<&'static str> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let [scheme, partition, named_service, region, account, rest] = parts[..] else {
        return Some("must be an ARN");
    };
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let name = rest.strip_prefix(resource);
    match () {
        () if scheme != "arn" || !partition.starts_with("aws") => Some("must be an ARN"),
        () if named_service != service => Some("must be an ARN of the right service"),
        () if region.is_empty() || !is_account => Some("the ARN must have a region and an account of 12 digits"),
        () if name.is_none() => Some("must be the ARN of the right kind of resource"),
        () if name.is_some_and(|name| name.is_empty() || name.starts_with(':')) => Some("the ARN must end with a name"),
        () if text.contains(char::is_whitespace) => Some("must not contain spaces"),
        () => None,
    }
}

fn resource_id(id: &str, prefix: &str) -> Option<&'static str> {
    let hex = id.strip_prefix(prefix).unwrap_or_default();
    let is_valid = (8..=40).contains(&hex.len()) && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (!is_valid).then_some("must be an ID of this kind")
}

fn share(name: &str) -> Option<&'static str> {
    let name = name.strip_suffix('*').unwrap_or(name);
    let is_valid = (1..=255).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (!is_valid).then_some("must consist of 1 to 255 letters and digits")
}

fn is_tag_char(c: char) -> bool {
    c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the part of the message after the colon, or `None` if the name is valid.
    fn problem(kind: Kind, name: &str) -> Option<String> {
        let error = check_name(kind, name).err()?;
        assert!(error.hint().is_some());
        let prefix = format!("invalid {} `{name}`: ", kind.label());
        Some(error.to_string().strip_prefix(&prefix).unwrap_or_else(|| panic!("{error}")).to_owned())
    }

    fn accepts(kind: Kind, names: &[&str]) {
        for name in names {
            assert_eq!(problem(kind, name), None, "{name}");
        }
    }

    fn rejects(kind: Kind, names: &[(&str, &str)]) {
        for (name, why) in names {
            let found = problem(kind, name);
            assert!(found.as_ref().is_some_and(|found| found.contains(why)), "{name}: {found:?}");
        }
    }

    #[test]
    fn knot_name_must_start_with_a_letter() {
        let (longest, longer) = ("a".repeat(45), "a".repeat(46));
        accepts(Kind::Knot, &["a", "sweep", "Sweep-2", "a--b", &longest]);
        let bad = [
            ("", "must not be empty"),
            ("2nd", "start with a letter"),
            ("-a", "start with a letter"),
            ("a_b", "must consist of"),
            ("größe", "must consist of"),
            ("a-", "must not end with"),
            (&*longer, "at most 45"),
        ];
        rejects(Kind::Knot, &bad);
        let error = check_name(Kind::Pars, "9").unwrap_err();
        assert_eq!(error.to_string(), "invalid Pars name `9`: must start with a letter");
        assert_eq!(error.kind(), ErrorKind::Config);
    }

    #[test]
    fn bucket_name_must_follow_the_s3_rules() {
        let (longest, longer) = ("a".repeat(63), "a".repeat(64));
        accepts(Kind::Bucket, &["lab", "1a2", "my.lab-data", "1.2.3.4.5", &longest]);
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
        rejects(Kind::Bucket, &bad);
    }

    #[test]
    fn paths_and_variables_are_checked() {
        accepts(Kind::RolePath, &["/", "/team/", "/a/b/"]);
        let long = format!("/{}/", "a".repeat(511));
        let bad = [
            ("", "a slash"),
            ("team", "a slash"),
            ("/team", "a slash"),
            ("//", "a slash"),
            ("/a b/", "without spaces"),
            (&*long, "512"),
        ];
        rejects(Kind::RolePath, &bad);
        accepts(Kind::Variable, &["API_KEY", "aws_batch", "AWS_REGION"]);
        let bad = [
            ("", "empty"),
            ("A=B", "`=`"),
            ("AWS_BATCH_X", "AWS Batch reserves"),
            ("CLOUDKNOT_RUN", "cloudknot reserves"),
        ];
        rejects(Kind::Variable, &bad);
    }

    #[test]
    fn arns_must_match_service_and_resource() {
        let key = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab";
        accepts(Kind::Key, &[key, "arn:aws-cn:kms:cn-north-1:123456789012:key/mrk-1"]);
        let queue = "arn:aws:batch:eu-central-1:123456789012:job-queue/lab";
        accepts(Kind::Queue, &[queue, "arn:aws-us-gov:batch:us-gov-west-1:123456789012:job-queue/a_b"]);
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
        rejects(Kind::Key, &bad);
        rejects(
            Kind::Queue,
            &[
                (key, "the right service"),
                ("arn:aws:batch:r:123456789012:job-definition/a", "the right kind of resource"),
            ],
        );
        accepts(Kind::FileSystem, &["fs-01234567", "fs-0123456789abcdef0"]);
        accepts(Kind::AccessPoint, &["fsap-0123456789abcdef0"]);
        accepts(Kind::Share, &["physics", "A1*", &"x".repeat(255)]);
        rejects(Kind::Share, &[("", "letters"), ("*", "letters"), ("a-b", "letters"), (&"x".repeat(256), "255")]);
        rejects(Kind::FileSystem, &[("fs-0123", "ID"), ("fs-0123456X", "ID"), ("fsap-01234567", "ID"), ("", "ID")]);
    }

    #[test]
    fn json_key_is_stripped_from_secret_arn() {
        let whole = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:lab-AbCdEf";
        let manager = Secret::Manager(whole.to_owned());
        assert_eq!(secret(whole).unwrap(), manager);
        assert_eq!(secret(&format!("{whole}:password::")).unwrap(), manager);
        assert_eq!(secret(&format!("{whole}:password:AWSCURRENT:")).unwrap(), manager);
        assert_eq!(secret(&format!("{whole}::AWSPREVIOUS:")).unwrap(), manager);
        let parameter = "arn:aws:ssm:eu-central-1:123456789012:parameter/lab/token";
        assert_eq!(secret(parameter).unwrap(), Secret::Parameter(parameter.to_owned()));
        let check = |value: &str, why: &str| {
            let error = secret(value).unwrap_err();
            assert!(error.to_string().ends_with(why), "{error}");
        };
        check(&format!("{whole}:password"), "two colons must follow the JSON key");
        check(&format!("{whole}:a:b"), "must have the colons of an ARN");
        check(&format!("{whole}:a:b:c:d"), "must have the colons of an ARN");
        check(&format!("{whole}:::"), "the JSON key must not be empty");
        check("arn:aws:secretsmanager:eu-central-1:123456789012:secret:", "the ARN must end with a name");
        check("arn:aws:ssm:eu-central-1:123456789012:document/lab", "the right service");
        check("API_KEY", "must be an ARN");
    }

    #[test]
    fn invalid_and_reserved_tags_are_refused() {
        let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let accepts = |tags: &[(String, String)]| check_tags(tags).unwrap();
        accepts(&[]);
        accepts(&[tag("Owner", "Ada Lovelace"), tag("Kostenstelle", "Größe/7 @ a+b"), tag("Name", ""), tag("Aw", "x")]);
        accepts(&[tag(&"k".repeat(128), &"v".repeat(256))]);
        let many = |number: usize| (0..number).map(|n| tag(&n.to_string(), "")).collect::<Vec<_>>();
        accepts(&many(48));
        let check = |tags: &[(String, String)], why: &str| {
            let error = check_tags(tags).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        check(&many(49), "at most 48");
        check_knot_tags(&many(46)).unwrap();
        assert!(check_knot_tags(&many(47)).unwrap_err().to_string().contains("at most 46"));
        check_run_tags(40, &many(6)).unwrap();
        let message = "cannot submit: a job has 47 tags, 7 of the run and 40 of its Knot; it can have 46 besides those of cloudknot";
        assert_eq!(check_run_tags(40, &many(7)).unwrap_err().to_string(), message);
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
