//! Finds the images that a Dockerfile refers to. Parses only the instructions that refer to images.

use std::collections::HashMap;

/// Returns the external images in `FROM` and `COPY --from`, each once.
pub(super) fn images(dockerfile: &str) -> Vec<String> {
    let mut images = Vec::new();
    let mut stages = vec!["scratch".to_owned()];
    let mut defaults = HashMap::new();
    for line in instructions(dockerfile) {
        let mut words = line.split_whitespace();
        let instruction = words.next().unwrap_or_default().to_uppercase();
        let options = words.clone().filter_map(|word| word.strip_prefix("--"));
        let image = match instruction.as_str() {
            // `FROM` can refer only to arguments before the first stage.
            "ARG" if stages.len() == 1 => {
                for (name, value) in words.filter_map(|word| word.split_once('=')) {
                    let value = expand(value.trim_matches(['"', '\'']), &defaults);
                    defaults.insert(name.to_owned(), value);
                }
                continue;
            }
            "FROM" => {
                let mut words = words.skip_while(|word| word.starts_with("--"));
                let image = words.next().map(|image| expand(image, &defaults));
                let stage = words.nth(1).unwrap_or_default().to_lowercase();
                let image = image.filter(|image| !stages.contains(&image.to_lowercase()));
                stages.push(stage);
                image
            }
            // A stage is referred to by its name or its number.
            "COPY" => options
                .filter_map(|option| option.strip_prefix("from="))
                .map(str::to_owned)
                .find(|from| from.parse::<u32>().is_err() && !stages.contains(&from.to_lowercase())),
            _ => None,
        };
        if let Some(image) = image.filter(|image| !images.contains(image)) {
            images.push(image);
        }
    }
    images
}

/// Returns the lines that are not comments, each joined with its continuation lines.
fn instructions(dockerfile: &str) -> Vec<String> {
    let mut instructions = Vec::new();
    let mut instruction = String::new();
    for line in dockerfile.lines().filter(|line| !line.trim_start().starts_with('#')) {
        match line.trim_end().strip_suffix('\\') {
            Some(part) => instruction += part,
            None => instructions.push(std::mem::take(&mut instruction) + line),
        }
    }
    instructions.push(instruction);
    instructions
}

/// Replaces `$NAME`, `${NAME}` and `${NAME:-default}` in a string. Unknown variables are empty, as in Docker.
fn expand(text: &str, values: &HashMap<String, String>) -> String {
    let Some((before, after)) = text.split_once('$') else { return text.to_owned() };
    let braced = after.strip_prefix('{').and_then(|rest| rest.split_once('}'));
    let (variable, rest) = braced.unwrap_or_else(|| {
        let end = after.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        after.split_at(end.unwrap_or(after.len()))
    });
    let (name, default) = variable.split_once(":-").unwrap_or((variable, ""));
    let value = values.get(name).map_or(default, String::as_str);
    format!("{before}{value}{}", expand(rest, values))
}

#[cfg(test)]
mod tests {
    use super::images;

    #[test]
    fn external_images_are_found() {
        let check = |dockerfile: &str, expected: &[&str]| assert_eq!(images(dockerfile), expected, "{dockerfile}");
        check("FROM debian:12-slim\nRUN apt-get update\n", &["debian:12-slim"]);
        check(
            "# FROM no\n\nfrom --platform=linux/amd64 lab.example:5000/base@sha256:00 AS made\n",
            &["lab.example:5000/base@sha256:00"],
        );
        check(
            "FROM a AS one\nFROM One AS two\nFROM b\nCOPY --from=two /x /\nCOPY --from=0 /x /\nCOPY x /\n",
            &["a", "b"],
        );
        check("FROM a\nCOPY --chown=1 --from=lab.example/c /x /\nFROM a\n", &["a", "lab.example/c"]);
        check("FROM scratch\nCOPY . /\n", &[]);
        check(
            "ARG WHERE=lab.example TAG\nARG BASE=\"${WHERE}/base\"\nFROM $BASE:${TAG:-12}\nARG BASE=no\nFROM $BASE\n",
            &["lab.example/base:12", "lab.example/base"],
        );
        check("FROM \\\n  # between\n  debian:12 \\\n  AS made\nRUN echo FROM no \\\nFROM no\n", &["debian:12"]);
        check("", &[]);
    }
}
