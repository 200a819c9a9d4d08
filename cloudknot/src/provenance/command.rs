//! The command line of a program, without secrets.

/// Words in the name of an option or variable whose value is a secret.
const SECRET_WORDS: [&str; 6] = ["token", "secret", "password", "passwd", "key", "credential"];
const MASK: &str = "***";

/// Returns the arguments, with `***` for what may be a secret: the value of an option or an assignment whose name has one of
/// [`SECRET_WORDS`], and the user information of a URL.
pub(super) fn masked(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut is_value = false;
    let masked = arguments.into_iter().map(|argument| {
        let is_secret = std::mem::replace(&mut is_value, is_secret_option(&argument));
        if is_secret { MASK.to_owned() } else { without_user_information(&without_secret_values(&argument)) }
    });
    masked.collect()
}

/// Returns whether the argument is an option whose value, a secret, is the next argument.
fn is_secret_option(argument: &str) -> bool {
    argument.starts_with('-') && secret_word(argument).is_some_and(|(_, end)| !argument[end..].contains(['=', ':']))
}

/// Returns the start and the end of the first secret word.
fn secret_word(argument: &str) -> Option<(usize, usize)> {
    let lowercase = argument.to_ascii_lowercase();
    let words = SECRET_WORDS.iter().filter_map(|word| lowercase.find(word).map(|start| (start, start + word.len())));
    words.min()
}

/// Masks whatever follows the first `=` or `:` after a secret word.
fn without_secret_values(argument: &str) -> String {
    let value = secret_word(argument).and_then(|(_, end)| Some(end + argument[end..].find(['=', ':'])? + 1));
    value.map_or_else(|| argument.to_owned(), |value| format!("{}{MASK}", &argument[..value]))
}

/// Masks the user information of URLs, such as `user:password` in `https://user:password@host/`.
fn without_user_information(argument: &str) -> String {
    let mut parts = argument.split("://");
    let scheme = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| {
        let authority = part.split(['/', '?', '#']).next().unwrap_or_default();
        authority.rfind('@').map_or_else(|| part.to_owned(), |at| format!("{MASK}{}", &part[at..]))
    });
    std::iter::once(scheme).chain(rest).collect::<Vec<_>>().join("://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(arguments: &str, expected: &str) {
        assert_eq!(masked(arguments.split(' ').map(str::to_owned)).join(" "), expected);
    }

    #[test]
    fn ordinary_arguments_are_kept() {
        for arguments in [
            "sweep --items 3 -v data/keys/a.csv",
            "sweep s3://lab-keys/x https://host:80/a@b",
            "sweep tokens 3",
            "",
            "größe=3",
        ] {
            check(arguments, arguments);
        }
    }

    #[test]
    fn secrets_are_masked() {
        check("sweep --token abc --items 3", "sweep --token *** --items 3");
        check("sweep --token=abc -Secret abc", "sweep --token=*** -Secret ***");
        check("sweep --api-key --password abc x", "sweep --api-key *** *** x");
        check("AWS_SECRET_ACCESS_KEY=abc=def sweep", "AWS_SECRET_ACCESS_KEY=*** sweep");
        check("sweep DbPassWD=größe --credentials", "sweep DbPassWD=*** --credentials");
        check("sweep X-Api-Key:abc {\"token\":\"abc\"}", "sweep X-Api-Key:*** {\"token\":***");
        check("sweep https://host/?a=b&token=abc&c=d", "sweep https://host/?a=b&token=***");
        check(
            "sweep --url=https://ada:pa@ss@host/x@y ssh://git@host",
            "sweep --url=https://***@host/x@y ssh://***@host",
        );
        check("sweep postgres://ada:pass@host,http://b@c", "sweep postgres://***@host,http://***@c");
    }
}
