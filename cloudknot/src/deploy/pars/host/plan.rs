//! The plan of a Pars: its template, and the steps to it. Pure data, computed from what was resolved.

use serde_json::{Value, json};

use super::network::{Existing, NetworkState};
use super::resolve::ParsState;
use super::stack::{Note, content, log_group, stack_name};
use crate::aws::cloudformation::Stack;
use crate::deploy::costs;
use crate::deploy::pars::ParsBuilder;
use crate::deploy::plan::Plan;
use crate::deploy::stack_note::StackNote;
use crate::deploy::template::{render, resources};
use crate::error::Result;
use crate::settings::network::{self, MAX_ZONES};
use crate::settings::pars::{Internet, Network, ParsSettings};
use crate::settings::partition::Partition;
use crate::settings::sizes::counted;

/// A Pars to be created.
pub(crate) struct ParsPlan {
    /// Name of the stack.
    pub(super) stack: String,
    pub(super) template: String,
    pub(super) tags: Vec<(String, String)>,
    /// `true` if the default VPC has to be created first; the template contains a placeholder until then.
    pub(super) needs_default_vpc: bool,
    pub(super) creates_bucket: bool,
    /// Costs of the network, the expiry of runs, and what is worth knowing about the network.
    pub(super) notes: Vec<String>,
    pub(crate) steps: Plan,
}

impl ParsPlan {
    pub(crate) fn new(state: &ParsState) -> Result<Self> {
        Self::in_network(state, &state.network)
    }

    /// Creates a plan for this network, in place of the one that was resolved.
    pub(super) fn in_network(state: &ParsState, network: &NetworkState) -> Result<Self> {
        let (builder, stack) = (&state.builder, stack_name(&state.builder.name));
        let template = template(state, network)?;
        let creates_bucket = resources(&template).contains_key("Bucket");
        let costs = costs_of(builder, network);
        let expiry = builder.settings.expire_runs().filter(|_| creates_bucket && state.before.is_none());
        // A bucket that existed before has its own rules.
        let expiry =
            expiry.map(|days| format!("runs in it are deleted after {} (--expire-runs)", counted(days, "day")));
        let mut steps = Plan::default();
        steps.stack(&stack, state.before.as_deref(), &template);
        steps.notes.extend(state.denied.clone());
        steps.notes.extend(state.stack.as_ref().and_then(Stack::deletion_note));
        steps.notes.extend(expiry.clone());
        steps.notes.extend(costs.clone());
        steps.notes.extend(network.notes());
        steps.notes.extend(state.key_note.clone());
        Ok(Self {
            stack,
            template,
            tags: tags(builder),
            needs_default_vpc: matches!(network, NetworkState::NoDefault),
            creates_bucket,
            notes: costs.into_iter().chain(expiry).chain(network.notes()).chain(state.key_note.clone()).collect(),
            steps,
        })
    }
}

/// Returns the costs of a new network, one sentence each.
fn costs_of(builder: &ParsBuilder, network: &NetworkState) -> Vec<String> {
    match (builder.settings.network(), network) {
        (Network::New { internet, endpoints, tenancy, .. }, NetworkState::New { zones }) => {
            let idle = costs::idle(Some((internet, endpoints, zones.len())), 0);
            idle.into_iter().chain(costs::of_tenancy(tenancy)).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns the network that these settings create, as far as it determines the costs; `None` if they create none.
pub(crate) fn new_network(settings: &ParsSettings) -> Option<(Internet, bool, usize)> {
    match settings.network() {
        Network::New { internet, endpoints, .. } => Some((internet, endpoints, MAX_ZONES)),
        _ => None,
    }
}

fn tags(builder: &ParsBuilder) -> Vec<(String, String)> {
    let cloudknot_tag = ("cloudknot:pars".to_owned(), builder.name.clone());
    std::iter::once(cloudknot_tag).chain(builder.settings.tags.clone()).collect()
}

fn template(state: &ParsState, network_state: &NetworkState) -> Result<String> {
    let (builder, settings) = (&state.builder, &state.builder.settings);
    let bucket = settings.bucket.as_ref();
    let (bucket_existed, logs_existed) = (state.bucket_existed, state.logs_existed);
    let note = Note { settings: settings.clone(), bucket_existed, logs_existed };
    let stack_note = StackNote { content: content(), settings: note, from_template: false };
    let values = json!({
        "pars": builder.name,
        "tags": settings.tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect::<Vec<_>>(),
        "permissions_boundary": settings.permissions_boundary,
        "role_path": settings.role_path(),
        "settings": serde_json::to_string(&stack_note).expect("settings serialize to JSON"),
        "keep_data": false,
        "group_description": group_description(state),
        "network": network(state, network_state)?,
        "instance_role": state.instance_role,
        "execution_role": state.execution_role,
        "bucket": {
            "existing": bucket.filter(|_| bucket_existed),
            "name": bucket.filter(|_| !bucket_existed),
            "kms_key": settings.kms_key, "expire_days": settings.expire_runs(), "prefix": settings.prefix(),
        },
        "logs": {
            "name": log_group(&builder.name), "existing": logs_existed,
            "retention_days": settings.log_retention(), "kms_key": settings.kms_key,
        },
    });
    Ok(render("pars.yaml", &values))
}

/// Returns the description of the security group in the existing stack, which AWS cannot change: another one would replace the group,
/// which the compute environments of Knots refer to.
fn group_description(state: &ParsState) -> Option<String> {
    let group = resources(state.before.as_deref()?).remove("SecurityGroup")?;
    serde_json::from_str(group.line("GroupDescription: ")?.trim_start_matches("GroupDescription: ")).ok()
}

fn network(state: &ParsState, network: &NetworkState) -> Result<Value> {
    Ok(match (network, state.builder.settings.network()) {
        (NetworkState::New { zones }, Network::New { cidr, tenancy, internet, endpoints }) => {
            let parts = network::subnets_of(&cidr, zones.len().max(1))?;
            let public = Some(parts.public).filter(|_| internet == Internet::Nat);
            let subnet = |(index, cidr): (usize, &String)| json!({"cidr": cidr, "zone": zones.get(index)});
            let subnets: Vec<_> = parts.subnets.iter().enumerate().map(subnet).collect();
            json!({
                "kind": "new", "cidr": cidr, "tenancy": tenancy, "internet": internet, "subnets": subnets,
                "public_cidr": public, "endpoints": endpoints,
                "in_china": Partition::of(&state.aws.region).is_china(),
            })
        }
        (NetworkState::Existing(Existing { vpc, subnets, assign_public_ip, subnets_assign_ip, .. }), _) => json!({
            "kind": "given", "vpc": vpc, "subnets": subnets, "assign_public_ip": assign_public_ip,
            "subnets_assign_ip": subnets_assign_ip,
        }),
        _ => json!({
            "kind": "given", "vpc": "-", "subnets": ["-"], "assign_public_ip": true, "subnets_assign_ip": true,
        }),
    })
}
