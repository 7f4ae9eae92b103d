//! Three namespaces in a row, made and removed as one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::namespace::{Namespace, remove_by_name, run};

/// Begins every namespace name of a lab; the process id and a counter follow.
const PREFIX: &str = "sluice-lab";

/// How long a new lab may take to carry its first packet.
const PATIENCE: Duration = Duration::from_secs(3);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// How a lab is built.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Generic receive offload on every interface. Makes veth use NAPI, which costs little and
    /// aggregates what arrives as single segments; frames transmitted by XDP into a veth
    /// arrive only with it (or with an XDP program there).
    pub gro: bool,
    /// MTU of every interface.
    pub mtu: u32,
    /// Receive and transmit queues of every interface; the kernel's choice when absent.
    pub queues: Option<u32>,
    /// A router between gateway and server: a packet can pass the gateway and die before the
    /// server, because its time to live is over.
    pub router: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            gro: true,
            mtu: 1500,
            queues: None,
            router: false,
        }
    }
}

/// One end of the lab as traffic sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that opens connections.
    Client,
    /// The one that is protected.
    Server,
}

/// Client, gateway and server namespaces, connected by veth pairs and routed. Removed on drop.
#[derive(Debug)]
pub struct Lab {
    client: Namespace,
    gateway: Namespace,
    router: Option<Namespace>,
    server: Namespace,
    name: String,
}

impl Lab {
    /// Interface of the client.
    pub const CLIENT_INTERFACE: &str = "c0";
    /// Interface of the gateway toward the client.
    pub const GATEWAY_CLIENT_INTERFACE: &str = "g0";
    /// Interface of the gateway toward the server.
    pub const GATEWAY_SERVER_INTERFACE: &str = "g1";
    /// Interface of the server.
    pub const SERVER_INTERFACE: &str = "s0";
    /// Interface of the router, if there is one, toward the gateway.
    pub const ROUTER_GATEWAY_INTERFACE: &str = "r0";
    /// Interface of the router toward the server.
    pub const ROUTER_SERVER_INTERFACE: &str = "r1";

    /// Builds a lab and waits until its addresses answer.
    ///
    /// # Errors
    /// When a namespace, an interface or an address cannot be made; what was made is removed.
    pub fn new(options: &LabOptions) -> Result<Self> {
        let name = format!(
            "{PREFIX}-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let built = Self::build(&name, options);
        if built.is_err() {
            remove_all(&name);
        }
        built.with_context(|| format!("build the lab {name}"))
    }

    fn build(name: &str, options: &LabOptions) -> Result<Self> {
        let client = Namespace::create(&format!("{name}-client"))?;
        let gateway = Namespace::create(&format!("{name}-gateway"))?;
        let server = Namespace::create(&format!("{name}-server"))?;
        let router = match options.router {
            true => Some(Namespace::create(&format!("{name}-router"))?),
            false => None,
        };
        let lab = Self {
            client,
            gateway,
            router,
            server,
            name: name.to_owned(),
        };
        lab.wire(options)?;
        Ok(lab)
    }

    fn wire(&self, options: &LabOptions) -> Result<()> {
        let mtu = options.mtu.to_string();
        for (namespace, near, other, far) in self.links() {
            let mut add = Command::new("ip");
            add.args(["-n", namespace.name(), "link", "add", near, "mtu", &mtu]);
            let queues = options.queues.map(|queues| queues.to_string());
            let queue_arguments = queues.as_deref().map_or_else(Vec::new, |queues| {
                vec!["numrxqueues", queues, "numtxqueues", queues]
            });
            add.args(&queue_arguments);
            add.args(["type", "veth", "peer", "name", far, "mtu", &mtu]);
            add.args(&queue_arguments);
            add.args(["netns", other.name()]);
            run(&mut add)?;
        }
        for (namespace, interface) in self.all_interfaces() {
            namespace.sysctl(&format!("net/ipv6/conf/{interface}/accept_dad"), "0")?;
            namespace.sysctl(&format!("net/ipv6/conf/{interface}/accept_ra"), "0")?;
            namespace.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "0")?;
            if options.gro {
                namespace.run("ethtool", &["-K", interface, "gro", "on"])?;
            }
            let (v4, v6) = self.interface_addresses(interface);
            namespace.run(
                "ip",
                &["addr", "add", &format!("{v4}/24"), "dev", interface],
            )?;
            namespace.run(
                "ip",
                &[
                    "-6",
                    "addr",
                    "add",
                    &format!("{v6}/64"),
                    "dev",
                    interface,
                    "nodad",
                ],
            )?;
        }
        let namespaces = [&self.client, &self.gateway, &self.server];
        for namespace in namespaces.into_iter().chain(&self.router) {
            namespace.sysctl("net/ipv4/conf/all/rp_filter", "0")?;
            // The limiter would hide ICMP errors that tests wait for.
            namespace.sysctl("net/ipv4/icmp_ratelimit", "0")?;
            namespace.sysctl("net/ipv6/icmp/ratelimit", "0")?;
        }
        for namespace in [&self.gateway].into_iter().chain(&self.router) {
            namespace.sysctl("net/ipv4/ip_forward", "1")?;
            namespace.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        }
        for (namespace, interface) in self.all_interfaces() {
            namespace.run("ip", &["link", "set", interface, "up"])?;
        }
        let toward_server = match &self.router {
            Some(_) => Self::ROUTER_SERVER_INTERFACE,
            None => Self::GATEWAY_SERVER_INTERFACE,
        };
        self.default_route(
            &self.client,
            Self::CLIENT_INTERFACE,
            Self::GATEWAY_CLIENT_INTERFACE,
        )?;
        self.default_route(&self.server, Self::SERVER_INTERFACE, toward_server)?;
        if let Some(router) = &self.router {
            let (there, back) = (
                Self::GATEWAY_SERVER_INTERFACE,
                Self::ROUTER_GATEWAY_INTERFACE,
            );
            self.default_route(&self.gateway, there, back)?;
            self.default_route(router, back, there)?;
        }
        // The first packets of a test shall not wait for address resolution.
        for destination in self.server_addresses() {
            let answered = crate::icmp::ping(&self.client, destination, 1, 56, PATIENCE)
                .with_context(|| format!("ping {destination}"))?;
            ensure!(answered == 1, "{destination} does not answer");
        }
        Ok(())
    }

    /// What `namespace` does not know goes out at `near`, to the far end's address.
    fn default_route(&self, namespace: &Namespace, near: &str, far: &str) -> Result<()> {
        let (v4, v6) = self.interface_addresses(far);
        let (v4, v6) = (v4.to_string(), v6.to_string());
        namespace.run("ip", &["route", "add", "default", "via", &v4, "dev", near])?;
        namespace.run(
            "ip",
            &["-6", "route", "add", "default", "via", &v6, "dev", near],
        )?;
        Ok(())
    }

    /// Both ends of every veth pair.
    fn links(&self) -> Vec<(&Namespace, &'static str, &Namespace, &'static str)> {
        let gateway = &self.gateway;
        let mut links = vec![(
            &self.client,
            Self::CLIENT_INTERFACE,
            gateway,
            Self::GATEWAY_CLIENT_INTERFACE,
        )];
        let (server, s0) = (&self.server, Self::SERVER_INTERFACE);
        let g1 = Self::GATEWAY_SERVER_INTERFACE;
        if let Some(router) = &self.router {
            links.push((router, Self::ROUTER_GATEWAY_INTERFACE, gateway, g1));
            links.push((server, s0, router, Self::ROUTER_SERVER_INTERFACE));
        } else {
            links.push((server, s0, gateway, g1));
        }
        links
    }

    fn all_interfaces(&self) -> Vec<(&Namespace, &'static str)> {
        let links = self.links().into_iter();
        links
            .flat_map(|(near, a, far, b)| [(near, a), (far, b)])
            .collect()
    }

    /// The client's namespace.
    #[must_use]
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// The gateway's namespace, where Sluice runs.
    #[must_use]
    pub fn gateway(&self) -> &Namespace {
        &self.gateway
    }

    /// The server's namespace.
    #[must_use]
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// The namespace of a side.
    #[must_use]
    pub fn side(&self, side: Side) -> &Namespace {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// The name that all its namespaces begin with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// IPv4 address of the client.
    #[must_use]
    pub fn client_v4(&self) -> Ipv4Addr {
        self.interface_addresses(Self::CLIENT_INTERFACE).0
    }

    /// IPv6 address of the client.
    #[must_use]
    pub fn client_v6(&self) -> Ipv6Addr {
        self.interface_addresses(Self::CLIENT_INTERFACE).1
    }

    /// IPv4 address of the server.
    #[must_use]
    pub fn server_v4(&self) -> Ipv4Addr {
        self.interface_addresses(Self::SERVER_INTERFACE).0
    }

    /// IPv6 address of the server.
    #[must_use]
    pub fn server_v6(&self) -> Ipv6Addr {
        self.interface_addresses(Self::SERVER_INTERFACE).1
    }

    /// The server's addresses, IPv4 first: for tests that run over both.
    #[must_use]
    pub fn server_addresses(&self) -> [IpAddr; 2] {
        [self.server_v4().into(), self.server_v6().into()]
    }

    /// The addresses of a side, each with the name of its family.
    #[must_use]
    pub fn families(&self, side: Side) -> [(&'static str, IpAddr); 2] {
        let interface = match side {
            Side::Client => Self::CLIENT_INTERFACE,
            Side::Server => Self::SERVER_INTERFACE,
        };
        let (v4, v6) = self.interface_addresses(interface);
        [("IPv4", v4.into()), ("IPv6", v6.into())]
    }

    /// The IPv4 (/24) and IPv6 (/64) address of one of the lab's interfaces.
    ///
    /// # Panics
    /// When the lab has no such interface.
    #[must_use]
    pub fn interface_addresses(&self, interface: &str) -> (Ipv4Addr, Ipv6Addr) {
        let (network, host4, host6) = match interface {
            Self::CLIENT_INTERFACE => (1, 1, 1),
            Self::GATEWAY_CLIENT_INTERFACE => (1, 254, 0xfe),
            Self::GATEWAY_SERVER_INTERFACE if self.router.is_some() => (3, 254, 0xfe),
            Self::ROUTER_GATEWAY_INTERFACE => (3, 1, 1),
            Self::GATEWAY_SERVER_INTERFACE | Self::ROUTER_SERVER_INTERFACE => (2, 254, 0xfe),
            Self::SERVER_INTERFACE => (2, 1, 1),
            other => panic!("the lab has no interface {other}"),
        };
        (
            Ipv4Addr::new(10, 77, network, host4),
            Ipv6Addr::new(0xfd77, u16::from(network), 0, 0, 0, 0, 0, host6),
        )
    }

    /// Every interface of client, gateway and server with its namespace, in the order of the
    /// packet's way.
    #[must_use]
    pub fn interfaces(&self) -> [(&Namespace, &'static str); 4] {
        [
            (&self.client, Self::CLIENT_INTERFACE),
            (&self.gateway, Self::GATEWAY_CLIENT_INTERFACE),
            (&self.gateway, Self::GATEWAY_SERVER_INTERFACE),
            (&self.server, Self::SERVER_INTERFACE),
        ]
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        remove_all(&self.name);
    }
}

/// Removes every namespace whose name begins with `name-`.
fn remove_all(name: &str) {
    for namespace in namespaces() {
        if namespace
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('-'))
            && let Err(error) = remove_by_name(&namespace)
        {
            eprintln!("namespace {namespace} stays behind: {error:#}");
        }
    }
}

/// Removes the namespaces (and the processes in them) of labs whose process has died without
/// cleaning up. Returns the names removed.
#[must_use]
pub fn sweep() -> Vec<String> {
    let mut removed = Vec::new();
    for namespace in namespaces() {
        let owner = namespace
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix('-'))
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok());
        let Some(owner) = owner else { continue };
        if !Path::new(&format!("/proc/{owner}")).exists() && remove_by_name(&namespace).is_ok() {
            removed.push(namespace);
        }
    }
    removed
}

fn namespaces() -> Vec<String> {
    std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}
