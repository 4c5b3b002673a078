//! The least that a proxy on Pingora can be: its own server, round robin over the nodes, nothing else.

use anyhow::Result;
use async_trait::async_trait;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;
use std::net::SocketAddr;
use std::sync::Arc;

struct Minimal(Arc<LoadBalancer<RoundRobin>>);

#[async_trait]
impl ProxyHttp for Minimal {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _ctx: &mut (),
    ) -> pingora::Result<Box<HttpPeer>> {
        let node = self
            .0
            .select(b"", 4)
            .ok_or_else(|| Error::explain(ErrorType::ConnectNoRoute, "no node"))?;
        Ok(Box::new(HttpPeer::new(node, false, String::new())))
    }
}

pub fn run(listen: SocketAddr, nodes: &[u16]) -> Result<()> {
    let conf = ServerConf {
        threads: std::thread::available_parallelism()?.get(),
        // As many as the gateway keeps; the default is fewer than the connections of this bench.
        upstream_keepalive_pool_size: 1024,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let nodes = nodes.iter().map(|port| format!("127.0.0.1:{port}"));
    let balancer = LoadBalancer::try_from_iter(nodes)?;
    let mut service = http_proxy_service(&server.configuration, Minimal(Arc::new(balancer)));
    service.add_tcp(&listen.to_string());
    server.add_service(service);
    server.run_forever()
}
