//! A peer between nodes that reach the primary and nodes that do not.

use std::pin::Pin;

use futures_util::Stream;
use prost::Message as _;
use tonic::Response;
use uuid::Uuid;
use waypost_domain::{
    CreateId, DomainId, LinkId, LongUrl, RedirectStatus, Slug, SlugKind, State, Timestamp, Version,
    signature,
};
use waypost_proto::link::link_service_server::{LinkService, LinkServiceServer};
use waypost_proto::link::{
    Absent, CreateBatchResponse, CreateOutcome, Failure, ResolveBatchResponse, ResolveOutcome,
    WatchEvent, WatchRequest,
};
use waypost_runtime::metrics::Registry;

use super::*;

/// Knows one link or none, says so as a primary or a replica does, and counts how often.
/// Refuses each create by its slug.
#[derive(Clone)]
struct Node {
    link: Option<Link>,
    from_primary: bool,
    asked: Arc<AtomicUsize>,
    /// The bytes of the largest call with creates.
    largest: Arc<AtomicUsize>,
}

impl Node {
    fn new(from_primary: bool) -> Self {
        Self {
            link: None,
            from_primary,
            asked: Arc::default(),
            largest: Arc::default(),
        }
    }

    fn transport(&self) -> Transport {
        transport::in_process(LinkServiceServer::new(self.clone()))
    }
}

#[tonic::async_trait]
impl LinkService for Node {
    async fn resolve_batch(
        &self,
        request: Request<ResolveBatchRequest>,
    ) -> Result<Response<ResolveBatchResponse>, Status> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        // Whatever it is asked for.
        let answer = |_| {
            let found = self.link.as_ref().map(message::Link::from);
            let found = found.map(resolve_outcome::Outcome::Found);
            ResolveOutcome {
                outcome: found.or(Some(resolve_outcome::Outcome::Absent(Absent {}))),
            }
        };
        Ok(Response::new(ResolveBatchResponse {
            outcomes: request.into_inner().keys.iter().map(answer).collect(),
            from_primary: self.from_primary,
        }))
    }

    async fn create_batch(
        &self,
        request: Request<CreateBatchRequest>,
    ) -> Result<Response<CreateBatchResponse>, Status> {
        let request = request.into_inner();
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.largest
            .fetch_max(request.encoded_len(), Ordering::Relaxed);
        let refused = |link: message::NewLink| CreateOutcome {
            outcome: Some(create_outcome::Outcome::Failed(Failure {
                reason: link.slug,
                retry: false,
            })),
        };
        Ok(Response::new(CreateBatchResponse {
            outcomes: request.links.into_iter().map(refused).collect(),
        }))
    }

    async fn update(&self, _: Request<UpdateRequest>) -> Result<Response<WriteResponse>, Status> {
        Err(Status::unimplemented("reads only"))
    }

    async fn delete(&self, _: Request<DeleteRequest>) -> Result<Response<WriteResponse>, Status> {
        Err(Status::unimplemented("reads only"))
    }

    async fn list(
        &self,
        _: Request<ListRequest>,
    ) -> Result<Response<message::ListResponse>, Status> {
        let (good, mut forged) = (signed_link("good"), signed_link("forged"));
        forged.long_url = LongUrl::parse("https://evil.example/").unwrap();
        Ok(Response::new(message::ListResponse {
            links: [&forged, &good].map(message::Link::from).into(),
            looked_to: None,
        }))
    }

    async fn lease_visits(
        &self,
        _: Request<LeaseVisitsRequest>,
    ) -> Result<Response<message::LeaseVisitsResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn claim(
        &self,
        _: Request<ClaimRequest>,
    ) -> Result<Response<message::ClaimResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn export(
        &self,
        _: Request<message::ExportRequest>,
    ) -> Result<Response<message::ExportResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn import(
        &self,
        _: Request<message::ImportRequest>,
    ) -> Result<Response<message::ImportResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn begin_epoch(
        &self,
        _: Request<message::BeginEpochRequest>,
    ) -> Result<Response<message::BeginEpochResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("reads only"))
    }
}

fn peer(nodes: &[Node]) -> Peer {
    let id = ShardId::parse("s0").unwrap();
    let nodes: Vec<Transport> = nodes.iter().map(Node::transport).collect();
    let metrics = Metrics::register(&Registry::new()).unwrap();
    Peer::new(id, nodes.into(), Arc::new(keys()), metrics)
}

fn keys() -> KeyRing {
    KeyRing::parse(&format!("1:{}", "5a".repeat(32))).unwrap()
}

fn signed_link(slug: &str) -> Link {
    let time = Timestamp::from_millis(1).unwrap();
    let mut link = Link {
        key: LinkKey {
            domain: DomainId::MAIN,
            slug: Slug::parse(slug).unwrap(),
        },
        id: LinkId(Uuid::from_u128(1)),
        long_url: LongUrl::parse("https://example.com/").unwrap(),
        redirect_status: RedirectStatus::Found,
        tenant: "t".to_owned(),
        state: State::Active,
        version: Version::first(Epoch::FIRST),
        created_at: time,
        updated_at: time,
        valid_since: None,
        valid_until: None,
        max_visits: None,
        title: None,
        tags: Vec::new(),
        forward_query: false,
        password_hash: None,
        create_id: CreateId(Uuid::from_u128(2)),
        source: None,
        signature: [0; signature::LEN],
    };
    link.signature = keys().sign(&link);
    link
}

async fn resolve(peer: &Peer) -> Item<Resolved> {
    let key = LinkKey {
        domain: DomainId::MAIN,
        slug: Slug::parse("unknown").unwrap(),
    };
    peer.resolve(vec![Arc::new(key)]).await.unwrap().remove(0)
}

#[tokio::test]
async fn a_node_that_cannot_reach_the_primary_is_passed_over_while_another_can() {
    let nodes = [Node::new(false), Node::new(true)];
    let peer = peer(&nodes);
    let mut absent = 0;
    for _ in 0..20 {
        if let Item::Done(Resolved::Absent) = resolve(&peer).await {
            absent += 1;
        }
    }
    let asked = nodes.map(|node| node.asked.load(Ordering::Relaxed));
    assert_eq!(absent, asked[1], "the primary's word, and nobody else's");
    // Once in each 250 ms, of which a slow machine may see several go by.
    assert!(asked[0] < asked[1], "{asked:?}");
}

#[tokio::test]
async fn an_absence_is_none_while_only_replicas_can_be_asked() {
    let peer = peer(&[Node::new(false), Node::new(false)]);
    for _ in 0..4 {
        let item = resolve(&peer).await;
        let is_unconfirmed = matches!(item, Item::Failed(Error::Unconfirmed));
        assert!(is_unconfirmed, "{item:?}");
    }
}

/// As large as a link can be.
fn largest_link(number: usize) -> Arc<NewLink> {
    let url = format!("https://example.com/{}", "a".repeat(8_000));
    Arc::new(NewLink {
        key: LinkKey {
            domain: DomainId::MAIN,
            slug: Slug::parse(&format!("aa{number:06}")).unwrap(),
        },
        kind: SlugKind::Minted,
        create_id: CreateId(Uuid::from_u128(number as u128)),
        long_url: LongUrl::parse(&url).unwrap(),
        redirect_status: RedirectStatus::Found,
        tenant: "t".repeat(64),
        valid_since: None,
        valid_until: None,
        max_visits: None,
        title: Some("t".repeat(512)),
        tags: vec!["t".repeat(64); 20],
        forward_query: true,
        password_hash: None,
        source: None,
    })
}

#[tokio::test]
async fn many_large_creates_go_out_in_calls_below_a_mebibyte_and_are_answered_in_order() {
    let nodes = [Node::new(true)];
    let peer = peer(&nodes);
    let links: Vec<_> = (0..512).map(largest_link).collect();
    let answers = peer.create(links.clone()).await.unwrap();
    assert_eq!(answers.len(), links.len());
    for (answer, link) in answers.iter().zip(&links) {
        let Item::Failed(Error::Refused(reason)) = answer else {
            panic!("not refused: {answer:?}");
        };
        assert_eq!(**reason, *link.key.slug.as_str());
    }
    let [node] = nodes;
    assert!(node.largest.load(Ordering::Relaxed) <= 1024 * 1024);
    assert!((5..=8).contains(&node.asked.load(Ordering::Relaxed)));
    // Small ones travel together.
    let url = LongUrl::parse("https://example.com/").unwrap();
    let small = links.into_iter().map(|mut link| {
        Arc::make_mut(&mut link).long_url = url.clone();
        link
    });
    node.asked.store(0, Ordering::Relaxed);
    peer.create(small.take(256).collect()).await.unwrap();
    assert_eq!(node.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_forged_link_is_counted_and_hides_no_other_from_a_list() {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let nodes = vec![Node::new(true).transport()];
    let shard = ShardId::parse("s0").unwrap();
    let peer = Peer::new(shard, nodes.into(), Arc::new(keys()), metrics);
    let listed = peer.list(ListRequest::default()).await.unwrap();
    let slugs: Vec<_> = listed.links.iter().map(|l| l.key.slug.as_str()).collect();
    assert_eq!(slugs, ["good"]);
    let metrics = prometheus::TextEncoder::new().encode_to_string(&registry.gather());
    let metrics = metrics.unwrap();
    assert!(metrics.contains("\nwaypost_bad_signatures_total{from=\"shard\"} 1\n"));
}

#[tokio::test]
async fn a_link_is_taken_for_its_own_slug_and_no_other() {
    let with = |slug| Node {
        link: Some(signed_link(slug)),
        ..Node::new(true)
    };
    let own = resolve(&peer(&[with("unknown")])).await;
    let is_found = matches!(own, Item::Done(Resolved::Found(_, Source::Primary)));
    assert!(is_found, "{own:?}");
    let other = resolve(&peer(&[with("another")])).await;
    let is_refused = matches!(other, Item::Failed(Error::Refused(_)));
    assert!(is_refused, "{other:?}");
}
