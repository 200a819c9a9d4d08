//! Tests of each request as EC2 receives it, and of the handling of the response. The responses look like EC2's,
//! with fewer elements.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;

use super::*;

/// Connector that records the requests to EC2 and returns prepared responses: a status and a body. Status 0 is a broken
/// connection.
#[derive(Debug, Clone, Default)]
struct Wire {
    requests: Arc<Mutex<Vec<Request>>>,
    responses: Arc<Mutex<VecDeque<(u16, String)>>>,
}

/// A recorded request: its headers, with the address as `uri`, and its body.
type Request = (Vec<(String, String)>, String);

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let headers = request.headers().iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let headers = [("uri".to_owned(), request.uri().to_owned())].into_iter().chain(headers).collect();
        let body = String::from_utf8(request.body().bytes().unwrap().to_vec()).unwrap();
        self.requests.lock().unwrap().push((headers, body));
        let (status, response) =
            self.responses.lock().unwrap().pop_front().expect("each request has a prepared response");
        HttpConnectorFuture::ready(match status {
            0 => Err(ConnectorError::io(response.into())),
            status => Ok(HttpResponse::new(status.try_into().unwrap(), SdkBody::from(response))),
        })
    }
}

impl Wire {
    fn responding<'a>(responses: impl IntoIterator<Item = (u16, &'a str)>) -> Self {
        let wire = Self::default();
        wire.responses.lock().unwrap().extend(responses.into_iter().map(|(status, text)| (status, text.to_owned())));
        wire
    }

    fn ec2(&self) -> Ec2 {
        self.ec2_with_attempts(3)
    }

    fn ec2_with_attempts(&self, attempts: u32) -> Ec2 {
        let connector = SharedHttpConnector::new(self.clone());
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", Some("a token".into()), None, "test");
        let retries =
            RetryConfig::standard().with_initial_backoff(Duration::from_millis(1)).with_max_attempts(attempts);
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .retry_config(retries)
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .build();
        Ec2::new(&Aws::of(config))
    }

    /// Returns the forms that were sent, without the version, which all of them have.
    fn forms(&self) -> Vec<String> {
        let short = |body: &str| body.replacen("&Version=2016-11-15", "", 1);
        self.requests.lock().unwrap().iter().map(|(_, body)| short(body)).collect()
    }

    fn header(&self, request: usize, name: &str) -> String {
        let requests = self.requests.lock().unwrap();
        let found = requests[request].0.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }
}

const DEFAULT_VPC: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<DescribeVpcsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>1</requestId><vpcSet><item>
<vpcId>vpc-0c18</vpcId><ownerId>123456789012</ownerId><state>available</state><cidrBlock>172.31.0.0/16</cidrBlock>
<cidrBlockAssociationSet><item><cidrBlock>172.31.0.0/16</cidrBlock></item></cidrBlockAssociationSet>
<isDefault>true</isDefault></item></vpcSet></DescribeVpcsResponse>"#;

fn default_vpc() -> Vpc {
    Vpc { id: "vpc-0c18".into(), cidr: "172.31.0.0/16".into(), is_default: true }
}

fn refusal(code: &str) -> String {
    format!("<Response><Errors><Error><Code>{code}</Code><Message>the reason</Message></Error></Errors></Response>")
}

#[tokio::test]
async fn default_vpc_is_found_by_a_signed_request() {
    let wire = Wire::responding([(200, DEFAULT_VPC)]);
    assert_eq!(wire.ec2().default_vpc().await.unwrap(), Some(default_vpc()));
    assert_eq!(wire.forms(), ["Action=DescribeVpcs&Filter.1.Name=is-default&Filter.1.Value.1=true"]);
    assert_eq!(wire.header(0, "uri"), "https://ec2.eu-central-1.amazonaws.com/");
    assert_eq!(wire.header(0, "content-type"), "application/x-www-form-urlencoded");
    assert_eq!(wire.header(0, "x-amz-security-token"), "a token");
    let signed = wire.header(0, "authorization");
    assert!(signed.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"), "{signed}");
    assert!(signed.contains("/eu-central-1/ec2/aws4_request"), "{signed}");
    assert!(signed.contains("x-amz-security-token"), "{signed}");

    let wire = Wire::responding([(200, "<DescribeVpcsResponse><vpcSet/></DescribeVpcsResponse>")]);
    assert_eq!(wire.ec2().default_vpc().await.unwrap(), None);
}

#[tokio::test]
async fn default_vpc_is_created_once() {
    let created = "<CreateDefaultVpcResponse><vpc><vpcId>vpc-0c18</vpcId><cidrBlock>172.31.0.0/16</cidrBlock>\
                <isDefault>true</isDefault></vpc></CreateDefaultVpcResponse>";
    let wire = Wire::responding([(200, created)]);
    assert_eq!(wire.ec2().create_default_vpc().await.unwrap(), default_vpc());
    assert_eq!(wire.forms(), ["Action=CreateDefaultVpc"]);

    let wire = Wire::responding([(400, &*refusal("DefaultVpcAlreadyExists")), (200, DEFAULT_VPC)]);
    assert_eq!(wire.ec2().create_default_vpc().await.unwrap(), default_vpc());
}

#[tokio::test]
async fn absent_vpc_is_none() {
    let wire = Wire::responding([(200, DEFAULT_VPC), (400, &*refusal("InvalidVpcID.NotFound"))]);
    let ec2 = wire.ec2();
    assert_eq!(ec2.vpc("vpc-0c18").await.unwrap(), Some(default_vpc()));
    assert_eq!(ec2.vpc("vpc-0").await.unwrap(), None);
    assert_eq!(wire.forms(), ["Action=DescribeVpcs&VpcId.1=vpc-0c18", "Action=DescribeVpcs&VpcId.1=vpc-0"]);
}

#[tokio::test]
async fn subnets_are_sorted_over_all_pages() {
    let subnet = |id: &str, zone: &str, public: bool| {
        format!(
            "<item><subnetId>{id}</subnetId><vpcId>vpc-1</vpcId><cidrBlock>10.0.0.0/20</cidrBlock><availabilityZone>{zone}\
             </availabilityZone><defaultForAz>{public}</defaultForAz><mapPublicIpOnLaunch>{public}</mapPublicIpOnLaunch>\
             </item>"
        )
    };
    let page = |items: &str, next: &str| format!("<R><subnetSet>{items}</subnetSet><nextToken>{next}</nextToken></R>");
    let first = page(&[subnet("subnet-3", "z-b", false), subnet("subnet-2", "z-a", true)].concat(), "to/ken==");
    let wire = Wire::responding([(200, &*first), (200, &page(&subnet("subnet-1", "z-a", true), ""))]);
    let found = wire.ec2().subnets("vpc-1").await.unwrap();
    let short: Vec<_> = found.iter().map(|s| (&*s.id, &*s.zone, s.public_ip, s.default_for_zone)).collect();
    let expected =
        [("subnet-1", "z-a", true, true), ("subnet-2", "z-a", true, true), ("subnet-3", "z-b", false, false)];
    assert_eq!(short, expected);
    let form = "Action=DescribeSubnets&Filter.1.Name=vpc-id&Filter.1.Value.1=vpc-1";
    assert_eq!(wire.forms(), [form.to_owned(), format!("{form}&NextToken=to%2Fken%3D%3D")]);
}

#[tokio::test]
async fn unusable_zones_are_omitted() {
    let zone = |name: &str, state: &str, kind: &str, opted: &str| {
        format!(
            "<item><zoneName>{name}</zoneName><zoneState>{state}</zoneState><zoneType>{kind}</zoneType>\
             <optInStatus>{opted}</optInStatus></item>"
        )
    };
    let zones = [
        zone("z-b", "available", "availability-zone", "opt-in-not-required"),
        zone("z-a", "available", "availability-zone", "opted-in"),
        zone("z-c", "unavailable", "availability-zone", "opt-in-not-required"),
        zone("z-d", "available", "availability-zone", "not-opted-in"),
        zone("z-a-muc-1a", "available", "local-zone", "opted-in"),
        "<item><zoneName>z-e</zoneName><zoneState>available</zoneState></item>".to_owned(),
    ];
    let response = format!("<R><availabilityZoneInfo>{}</availabilityZoneInfo></R>", zones.concat());
    let wire = Wire::responding([(200, &*response)]);
    let names: Vec<String> = wire.ec2().zones().await.unwrap().into_iter().map(|zone| zone.name).collect();
    assert_eq!(names, ["z-a", "z-b", "z-e"]);
    assert_eq!(wire.forms(), ["Action=DescribeAvailabilityZones"]);
}

#[tokio::test]
async fn routes_are_read_from_the_table_of_each_subnet() {
    let route = |target: &str| {
        format!("<item><destinationCidrBlock>0.0.0.0/0</destinationCidrBlock>{target}<state>active</state></item>")
    };
    let table = |routes: &str, associations: &str| {
        format!(
            "<item><routeSet><item><destinationCidrBlock>10.0.0.0/16</destinationCidrBlock><gatewayId>local</gatewayId>\
             <state>active</state></item>{routes}</routeSet><associationSet>{associations}</associationSet></item>"
        )
    };
    let of = |subnet: &str| format!("<item><subnetId>{subnet}</subnetId><main>false</main></item>");
    let tables = [
        table(&route("<gatewayId>igw-1</gatewayId>"), &[of("public"), of("public-2")].concat()),
        table(&route("<gatewayId>igw-1</gatewayId>"), "<item><main>true</main></item>"),
        table(&route("<natGatewayId>nat-1</natGatewayId>"), &of("nat")),
        table(&route("<gatewayId>vgw-1</gatewayId>"), &of("vpn")),
        table(&route("<transitGatewayId>tgw-1</transitGatewayId>"), &of("transit")),
        table(&route("<natGatewayId>nat-2</natGatewayId>").replace("active", "blackhole"), &of("deleted")),
    ];
    let response = format!("<R><routeTableSet>{}</routeTableSet></R>", tables.concat());
    let wire = Wire::responding([(200, &*response)]);
    let routes = wire.ec2().routes("vpc-1").await.unwrap();
    for (subnet, expected) in [
        ("public", Route::Public),
        ("public-2", Route::Public),
        ("nat", Route::Private),
        ("vpn", Route::Private),
        ("transit", Route::Private),
        ("deleted", Route::Isolated),
        ("of the main table", Route::Public),
    ] {
        assert_eq!(routes.of(subnet), expected, "{subnet}");
    }
    assert_eq!(wire.forms(), ["Action=DescribeRouteTables&Filter.1.Name=vpc-id&Filter.1.Value.1=vpc-1"]);
}

#[tokio::test]
async fn rules_admit_a_port_from_a_group_or_a_network() {
    let rule = |protocol: &str, ports: &str, from: &str| {
        let response = format!(
            "<R><securityGroupInfo><item><groupId>sg-1</groupId><ipPermissions><item><ipProtocol>{protocol}</ipProtocol>{ports}{from}\
             </item></ipPermissions></item></securityGroupInfo></R>"
        );
        let wire = Wire::responding([(200, &*response)]);
        async move { wire.ec2().inbound_rules(&["sg-1".to_owned()]).await.unwrap() }
    };
    let nfs = "<fromPort>2049</fromPort><toPort>2049</toPort>";
    let group = "<groups><item><groupId>sg-jobs</groupId></item></groups>";
    let network = |cidr: &str| format!("<ipRanges><item><cidrIp>{cidr}</cidrIp></item></ipRanges>");
    let from = ["10.0.0.0/20".to_owned(), "10.0.16.0/20".to_owned()];
    for (rules, expected) in [
        (rule("tcp", nfs, group).await, true),
        (rule("-1", "", group).await, true),
        (rule("tcp", nfs, &network("10.0.0.0/16")).await, true),
        (rule("tcp", nfs, "<prefixListIds><item><prefixListId>pl-1</prefixListId></item></prefixListIds>").await, true),
        (rule("tcp", nfs, &network("10.0.0.0/20")).await, false),
        (rule("udp", nfs, group).await, false),
        (rule("tcp", "<fromPort>22</fromPort><toPort>80</toPort>", group).await, false),
        (rule("tcp", nfs, "<groups><item><groupId>sg-other</groupId></item></groups>").await, false),
    ] {
        assert_eq!(rules.iter().any(|rule| rule.admits(2049, "sg-jobs", &from)), expected, "{rules:?}");
    }
}

#[tokio::test]
async fn resources_under_a_quota_are_counted() {
    let set = |name: &str, items: &[&str]| {
        let items: Vec<_> = items.iter().map(|item| format!("<item>{item}</item>")).collect();
        format!("<R><{name}>{}</{name}></R>", items.concat())
    };
    let addresses = [
        "<publicIp>192.0.2.1</publicIp><publicIpv4Pool>amazon</publicIpv4Pool>",
        "<publicIp>192.0.2.2</publicIp>",
        "<publicIp>192.0.2.3</publicIp><publicIpv4Pool>ipv4pool-ec2-1</publicIpv4Pool>",
    ];
    let gateways = ["a", "b", "b"].map(|subnet| format!("<subnetId>{subnet}</subnetId>"));
    let gateways = gateways.each_ref().map(String::as_str);
    let wire = Wire::responding([
        (200, DEFAULT_VPC),
        (200, &*set("addressesSet", &addresses)),
        (200, &*set("natGatewaySet", &gateways)),
        (200, &*set("subnetSet", &["<subnetId>b</subnetId>", "<subnetId>c</subnetId>"])),
        (200, &set("natGatewaySet", &[])),
    ]);
    let ec2 = wire.ec2();
    assert_eq!((ec2.count_vpcs().await.unwrap(), ec2.count_addresses().await.unwrap()), (1, 2));
    assert_eq!(ec2.count_nat_gateways("z-b").await.unwrap(), 2);
    assert_eq!(ec2.count_nat_gateways("z-b").await.unwrap(), 0);
    let states = "Filter.1.Name=state&Filter.1.Value.1=pending&Filter.1.Value.2=available&Filter.1.Value.3=deleting";
    assert_eq!(
        wire.forms()[2..4],
        [
            format!("Action=DescribeNatGateways&{states}"),
            "Action=DescribeSubnets&Filter.1.Name=availability-zone&Filter.1.Value.1=z-b".to_owned(),
        ]
    );
}

fn machine(name: &str, vcpus: u32, memory: u64, arch: &str, more: &str) -> String {
    format!(
        "<item><instanceType>{name}</instanceType><bareMetal>{}</bareMetal><processorInfo><supportedArchitectures>\
         <item>{arch}</item></supportedArchitectures></processorInfo><vCpuInfo><defaultVCpus>{vcpus}</defaultVCpus>\
         <validCores><item>2</item></validCores></vCpuInfo><memoryInfo><sizeInMiB>{memory}</sizeInMiB></memoryInfo>{more}\
         </item>",
        name.contains("metal")
    )
}

fn machines(items: &[String]) -> String {
    format!("<R><instanceTypeSet>{}</instanceTypeSet></R>", items.concat())
}

#[tokio::test]
async fn types_families_and_bundles_are_looked_up() {
    let gpu = "<gpuInfo><gpus><item><name>T4</name><manufacturer>NVIDIA</manufacturer><count>4</count><memoryInfo>\
               <sizeInMiB>16384</sizeInMiB></memoryInfo></item></gpus></gpuInfo>";
    let response = machines(&[
        machine("m5.large", 2, 8192, "x86_64", ""),
        machine("c7g.metal", 64, 131_072, "arm64", ""),
        machine("g4dn.12xlarge", 48, 196_608, "x86_64", gpu),
    ]);
    let wire = Wire::responding([(200, &*response)]);
    let chosen = ["c7g".to_owned(), "g4dn.12xlarge".to_owned(), "optimal".to_owned()];
    let found = wire.ec2().instance_types(&chosen).await.unwrap();
    let expected = [
        ("c7g.metal", 64, 131_072, 0, true),
        ("g4dn.12xlarge", 48, 196_608, 4, false),
        ("m5.large", 2, 8192, 0, false),
    ];
    let short: Vec<_> = found.iter().map(|t| (&*t.name, t.vcpus, t.memory_mib, t.gpus, t.bare_metal)).collect();
    assert_eq!(short, expected);
    assert_eq!(found[0].arch, ["arm64"]);
    let form = wire.forms().remove(0);
    let prefix = "Action=DescribeInstanceTypes&MaxResults=100&Filter.1.Name=instance-type&Filter.1.Value.1=c7g.%2A\
                  &Filter.1.Value.2=g4dn.12xlarge&Filter.1.Value.3=c4.%2A";
    assert!(form.starts_with(prefix) && form.ends_with("&Filter.1.Value.12=c7i.%2A"), "{form}");
}

#[tokio::test]
async fn instance_types_missing_in_the_region_are_named() {
    let response = machines(&[machine("m5.large", 2, 8192, "x86_64", ""), machine("c7gn.large", 2, 4096, "arm64", "")]);
    let wire = Wire::responding([(200, &*response)]);
    let chosen = ["m5".to_owned(), "m5.larg".to_owned(), "c7g".to_owned(), "default_arm64".to_owned()];
    let error = wire.ec2().instance_types(&chosen).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot find the instance types `m5.larg`, `c7g`, `default_arm64` in eu-central-1");
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn families_that_the_region_lacks_are_left_out() {
    let all = ["g4dn", "g5", "g6"].map(str::to_owned);
    let some =
        machines(&[machine("g4dn.xlarge", 4, 16_384, "x86_64", ""), machine("g5.xlarge", 4, 16_384, "x86_64", "")]);
    let (families, found) = Wire::responding([(200, &*some)]).ec2().families(&all).await.unwrap();
    assert_eq!((families, found.len()), (vec!["g4dn".to_owned(), "g5".to_owned()], 2));
    let error = Wire::responding([(200, &*machines(&[]))]).ec2().families(&all).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot find the instance types `g4dn`, `g5`, `g6` in eu-central-1");
}

#[tokio::test]
async fn long_list_is_split_into_several_requests() {
    let types: Vec<String> = (0..201).map(|number| format!("m5.{number}xlarge")).collect();
    let offered = "<R><instanceTypeOfferingSet><item><instanceType>m5.0xlarge</instanceType><locationType>availability-zone\
                   </locationType><location>z-b</location></item><item><instanceType>m5.0xlarge</instanceType><location>z-a\
                   </location></item></instanceTypeOfferingSet></R>";
    let wire = Wire::responding([(200, offered), (200, "<R><instanceTypeOfferingSet/></R>")]);
    let zones = wire.ec2().offered_in(&types).await.unwrap();
    assert_eq!(zones, BTreeMap::from([("m5.0xlarge".into(), BTreeSet::from(["z-a".into(), "z-b".into()]))]));
    let expected = "Action=DescribeInstanceTypeOfferings&LocationType=availability-zone&Filter.1.Name=instance-type\
                    &Filter.1.Value.1=m5.200xlarge";
    assert_eq!(wire.forms()[1], expected);
}

#[tokio::test]
async fn absent_image_and_key_pair_are_not_found() {
    let image = "<R><imagesSet><item><imageId>ami-1</imageId><rootDeviceName>/dev/xvda</rootDeviceName><architecture>arm64\
                 </architecture></item></imagesSet></R>";
    let key = "<R><keySet><item><keyName>Ada's key</keyName></item></keySet></R>";
    let wire = Wire::responding([
        (200, image),
        (400, &*refusal("InvalidAMIID.NotFound")),
        (200, key),
        (400, &refusal("InvalidKeyPair.NotFound")),
    ]);
    let ec2 = wire.ec2();
    let expected = Image { root_device: "/dev/xvda".into(), arch: "arm64".into() };
    assert_eq!(ec2.root_device("ami-1").await.unwrap(), Some(expected));
    assert_eq!(ec2.root_device("ami-2").await.unwrap(), None);
    assert!(ec2.key_pair_exists("Ada's key").await.unwrap());
    assert!(!ec2.key_pair_exists("lab").await.unwrap());
    assert_eq!(wire.forms()[0], "Action=DescribeImages&ImageId.1=ami-1");
    assert_eq!(wire.forms()[2], "Action=DescribeKeyPairs&KeyName.1=Ada%27s%20key");
}

#[tokio::test]
async fn throttling_is_retried() {
    let throttled = refusal("RequestLimitExceeded");
    let wire = Wire::responding([(503, &*throttled), (0, "reset"), (502, "<html/>"), (200, DEFAULT_VPC)]);
    let ec2 = wire.ec2_with_attempts(4);
    assert_eq!(ec2.default_vpc().await.unwrap(), Some(default_vpc()));
    assert_eq!(wire.forms().len(), 4);
    // EC2 also reports throttling with status 400.
    let wire = Wire::responding([(400, &*refusal("Throttling")), (200, DEFAULT_VPC)]);
    assert_eq!(wire.ec2().default_vpc().await.unwrap(), Some(default_vpc()));
}

#[tokio::test]
async fn refusal_has_caller_action_and_hint() {
    async fn check(status: u16, response: &str, kind: ErrorKind, shown: &str) {
        let error = Wire::responding([(status, response)]).ec2_with_attempts(1).subnets("vpc-1").await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(format!("{error:?}").starts_with(shown), "{error:?}");
        assert!(kind == ErrorKind::Aws || error.hint().is_some(), "{error:?}");
    }
    let what = "cannot list the subnets of the VPC `vpc-1`\n  caused by: ";
    let expected = |code: &str| format!("{what}the reason ({code})");
    for (code, kind) in [
        ("UnauthorizedOperation", ErrorKind::Denied),
        ("AuthFailure", ErrorKind::Credentials),
        ("RequestExpired", ErrorKind::Credentials),
        ("InvalidParameterValue", ErrorKind::Aws),
    ] {
        check(403, &refusal(code), kind, &expected(code)).await;
    }
    check(500, "", ErrorKind::Aws, &format!("{what}AWS responded with status 500")).await;
    check(0, "no such host", ErrorKind::Aws, what).await;
    let what = "cannot list the subnets of the VPC `vpc-1`: cannot parse the response from EC2 in eu-central-1";
    check(200, "no XML", ErrorKind::Aws, what).await;
    check(200, "<R><subnetSet><item/></subnetSet></R>", ErrorKind::Aws, what).await;
}
