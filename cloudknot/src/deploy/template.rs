//! Templates of stacks and policies, and the outputs and resources of a template.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

/// Templates by their names.
const TEMPLATES: [(&str, &str); 14] = [
    ("pars.yaml", include_str!("templates/pars.yaml.j2")),
    ("knot.yaml", include_str!("templates/knot.yaml.j2")),
    ("policies/clean.json.j2", include_str!("templates/policies/clean.json.j2")),
    ("policies/clobber.json.j2", include_str!("templates/policies/clobber.json.j2")),
    ("policies/deploy.json.j2", include_str!("templates/policies/deploy.json.j2")),
    ("policies/doctor.json.j2", include_str!("templates/policies/doctor.json.j2")),
    ("policies/job-role.json.j2", include_str!("templates/policies/job-role.json.j2")),
    ("policies/pars-clobber.json.j2", include_str!("templates/policies/pars-clobber.json.j2")),
    ("policies/pars-create.json.j2", include_str!("templates/policies/pars-create.json.j2")),
    ("policies/pars-network.json.j2", include_str!("templates/policies/pars-network.json.j2")),
    ("policies/prune.json.j2", include_str!("templates/policies/prune.json.j2")),
    ("policies/push.json.j2", include_str!("templates/policies/push.json.j2")),
    ("policies/run.json.j2", include_str!("templates/policies/run.json.j2")),
    ("policies/show.json.j2", include_str!("templates/policies/show.json.j2")),
];

/// Resource of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Type of the resource, such as `AWS::S3::Bucket`.
    pub(crate) kind: String,
    /// Complete text of the resource in the template.
    text: String,
}

impl Resource {
    /// Returns the first line of the resource that starts with `prefix`.
    pub(crate) fn line(&self, prefix: &str) -> Option<&str> {
        self.text.lines().map(str::trim).find(|line| line.starts_with(prefix))
    }
}

/// Returns the source of a template, before it is rendered.
pub(crate) fn source(name: &str) -> &'static str {
    TEMPLATES.iter().find(|(template_name, _)| *template_name == name).expect("the template is embedded").1
}

/// Renders a template. `values` must have every value that the template uses.
pub(crate) fn render(name: &str, values: &impl Serialize) -> String {
    let mut environment = Environment::new();
    let whitespace = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    environment.set_syntax(whitespace.expect("the default delimiters are valid"));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    for (name, text) in TEMPLATES {
        environment.add_template(name, text).expect("the embedded templates are well-formed");
    }
    let template = environment.get_template(name).expect("the template is embedded");
    template.render(Serde(values)).expect("`values` has every value of the template")
}

/// Returns the comment at the top of a template that the user creates a stack from. It has no date, so that the same
/// input always results in the same text.
pub(crate) fn heading(command: &str, stack: &str, next_steps: &[String]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let first = [
        format!(
            "Rendered by `cargo knot template {command}`, cloudknot {version}. Create the stack `{stack}` from it, \
             with the"
        ),
        "capability CAPABILITY_IAM: cloudknot finds the stack by that name.".to_owned(),
    ];
    first.iter().chain(next_steps).flat_map(|line| ["# ", line, "\n"]).collect()
}

/// Returns the outputs that one of the embedded templates has for all values.
pub(crate) fn outputs(name: &str) -> impl Iterator<Item = &'static str> {
    let lines = source(name).lines().skip_while(|line| *line != "Outputs:").skip(1);
    // Outputs inside of `if` and `for` blocks do not always exist.
    let mut depth = 0_i32;
    let named = move |line: &'static str| {
        depth += i32::try_from(line.matches("{% if ").count() + line.matches("{% for ").count()).unwrap_or(0);
        depth -= i32::try_from(line.matches("{% endif").count() + line.matches("{% endfor").count()).unwrap_or(0);
        let name = line.strip_prefix("  ")?.strip_suffix(':')?;
        (depth == 0 && name.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(name)
    };
    lines.filter_map(named)
}

/// Returns the value of an output, if one of the rendered templates has it literally.
pub(crate) fn output_in(template: &str, name: &str) -> Option<String> {
    let is_name = |line: &&str| line.strip_prefix("  ").and_then(|line| line.strip_suffix(':')) == Some(name);
    let lines = template.lines().skip_while(|line| *line != "Outputs:");
    let value = lines.skip_while(|line| !is_name(line)).nth(1)?.trim().strip_prefix("Value: ")?;
    serde_json::from_str(value).ok()
}

/// Returns the resources of one of the rendered templates, by their logical IDs.
pub(crate) fn resources(template: &str) -> BTreeMap<String, Resource> {
    let mut found: BTreeMap<String, Resource> = BTreeMap::new();
    let mut current = None;
    let lines = template.lines().skip_while(|line| *line != "Resources:").skip(1);
    for line in lines.take_while(|line| line.is_empty() || line.starts_with([' ', '#'])) {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let is_name = line.len() - line.trim_start().len() == 2;
        if let Some(name) = trimmed.strip_suffix(':').filter(|_| is_name) {
            let name = name.trim_matches('"').to_owned();
            found.insert(name.clone(), Resource { kind: String::new(), text: String::new() });
            current = Some(name);
        } else if let Some(resource) = current.as_ref().and_then(|name| found.get_mut(name)) {
            if let Some(kind) = trimmed.strip_prefix("Type: ").filter(|_| resource.kind.is_empty()) {
                kind.clone_into(&mut resource.kind);
            }
            resource.text.push_str(line);
            resource.text.push('\n');
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditional_outputs_are_omitted() {
        let always: Vec<_> = outputs("pars.yaml").collect();
        assert!(
            ["Pars", "Bucket", "LogGroup", "Subnets", "ExecutionRole", "Settings"]
                .iter()
                .all(|key| always.contains(key))
        );
        assert!(!always.contains(&"BucketKey"), "{always:?}");
    }

    #[test]
    fn literal_output_is_read() {
        let template = "Resources:\n  Pars:\n    Value: \"no\"\nOutputs:\n  Knot:\n    Value: \"sweep\"\n  Pars:\n    Value: \
                        \"lab\"\n  Queue:\n    Value: {Ref: JobQueue}\n";
        assert_eq!(output_in(template, "Pars").as_deref(), Some("lab"));
        assert_eq!(output_in(template, "Queue"), None);
        assert_eq!(output_in(template, "Bucket"), None);
    }

    #[test]
    fn resources_are_parsed_by_name() {
        let template = "# x\nResources:\n  # One\n  A:\n    Type: AWS::S3::Bucket\n    Properties:\n      # why\n      X: 1\n\n  \
                        \"B\":\n    Type: AWS::Batch::JobQueue\nOutputs:\n  C:\n    Value: 1\n";
        let found = resources(template);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["A", "B"]);
        assert_eq!(found["A"].kind, "AWS::S3::Bucket");
        assert_eq!(found["A"].text, "    Type: AWS::S3::Bucket\n    Properties:\n      X: 1\n");
        assert_eq!(found["B"].kind, "AWS::Batch::JobQueue");
    }
}
