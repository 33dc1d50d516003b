//! The service as tonic wants it: every method hands its request to a thread that may block, and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proto::v1::{aether_server::Aether, *};
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status, async_trait};

use super::{
    Access, Answer, Host, Service,
    stream::{Events, Sink, channel},
};

type Reply<T> = Result<Response<T>, Status>;

impl Service {
    /// What there is for whoever sent a request, as the door that he came through says. Error: PERMISSION_DENIED for who came through none.
    fn for_caller<Q>(&self, request: &Request<Q>) -> Answer<Host> {
        let access = request.extensions().get::<Access>().cloned();
        let access = access.ok_or_else(|| Status::permission_denied("nobody says who is calling"))?;
        Ok(Host { access, ..self.host().clone() })
    }

    /// One answer.
    pub(super) async fn call<Q, T>(&self, request: Request<Q>, work: fn(&Host, Q) -> Answer<T>) -> Reply<T>
    where
        Q: Send + 'static,
        T: Send + 'static,
    {
        let (host, request) = (self.for_caller(&request)?, request.into_inner());
        let entered = host.bounds.requests.enter()?;
        let answer = spawn_blocking(move || {
            // Until the work is done, and not until the caller is gone.
            let _entered = entered;
            guarded(|| work(&host, request))
        })
        .await;
        answer
            .unwrap_or_else(|_| Err(Status::unavailable("aetherfsd is stopping; try again")))
            .map(Response::new)
    }

    /// Many.
    pub(super) fn stream<Q, T>(
        &self,
        request: Request<Q>,
        work: fn(&Host, Q, &Sink<T>) -> Answer<()>,
    ) -> Reply<Events<T>>
    where
        Q: Send + 'static,
        T: Send + 'static,
    {
        let (host, request) = (self.for_caller(&request)?, request.into_inner());
        let entered = (host.bounds.requests.enter()?, host.bounds.streams.enter()?);
        let (sink, events) = channel();
        spawn_blocking(move || {
            let _entered = entered;
            if let Err(status) = guarded(|| work(&host, request, &sink)) {
                sink.fail(status);
            }
        });
        Ok(Response::new(events))
    }
}

/// A panic is a bug of ours, logged by the hook; the one who asked is told, and nobody else is hurt.
fn guarded<T>(work: impl FnOnce() -> Answer<T>) -> Answer<T> {
    let answer = catch_unwind(AssertUnwindSafe(work));
    answer.unwrap_or_else(|_| Err(Status::internal("aetherfsd failed at this request; its log says where")))
}

#[async_trait]
impl Aether for Service {
    type ImportStream = Events<ImportEvent>;
    type ListStream = Events<ListItem>;
    type ListRemoteStream = Events<RemoteSession>;
    type SealStream = Events<SealEvent>;
    type DiffStream = Events<DiffEntry>;
    type ListDirStream = Events<DirEntry>;
    type ReadFileStream = Events<ReadFileFrame>;
    type PublishStream = Events<PublishEvent>;
    type HandoffStream = Events<PublishEvent>;
    type FetchStream = Events<FetchEvent>;
    type ProfileStream = Events<ProfileEvent>;
    type GcStream = Events<GcEvent>;
    type GcRemoteStream = Events<GcRemoteEvent>;
    type GcWhyStream = Events<GcWhyLine>;
    type FsckStream = Events<FsckEvent>;

    async fn import(&self, request: Request<ImportRequest>) -> Reply<Self::ImportStream> {
        self.stream(request, Host::import)
    }

    async fn create(&self, request: Request<CreateRequest>) -> Reply<CreateReply> {
        self.call(request, Host::create).await
    }

    async fn fork(&self, request: Request<ForkRequest>) -> Reply<ForkReply> {
        self.call(request, Host::fork).await
    }

    async fn mount(&self, request: Request<MountRequest>) -> Reply<MountReply> {
        self.call(request, Host::mount).await
    }

    async fn unmount(&self, request: Request<UnmountRequest>) -> Reply<UnmountReply> {
        self.call(request, Host::unmount).await
    }

    async fn advance(&self, request: Request<AdvanceRequest>) -> Reply<AdvanceReply> {
        self.call(request, Host::advance).await
    }

    async fn list(&self, request: Request<ListRequest>) -> Reply<Self::ListStream> {
        self.stream(request, Host::list)
    }

    async fn list_remote(&self, request: Request<ListRemoteRequest>) -> Reply<Self::ListRemoteStream> {
        self.stream(request, Host::list_remote)
    }

    async fn show(&self, request: Request<ShowRequest>) -> Reply<ShowReply> {
        self.call(request, Host::show).await
    }

    async fn seal(&self, request: Request<SealRequest>) -> Reply<Self::SealStream> {
        self.stream(request, Host::seal)
    }

    async fn publish(&self, request: Request<PublishRequest>) -> Reply<Self::PublishStream> {
        self.stream(request, Host::publish)
    }

    async fn handoff(&self, request: Request<HandoffRequest>) -> Reply<Self::HandoffStream> {
        self.stream(request, Host::handoff)
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Reply<Self::FetchStream> {
        self.stream(request, Host::fetch)
    }

    async fn profile(&self, request: Request<ProfileRequest>) -> Reply<Self::ProfileStream> {
        self.stream(request, Host::profile)
    }

    async fn pin(&self, request: Request<PinRequest>) -> Reply<PinReply> {
        self.call(request, Host::pin).await
    }

    async fn unpin(&self, request: Request<UnpinRequest>) -> Reply<UnpinReply> {
        self.call(request, Host::unpin).await
    }

    async fn expire(&self, request: Request<ExpireRequest>) -> Reply<ExpireReply> {
        self.call(request, Host::expire).await
    }

    async fn label(&self, request: Request<LabelRequest>) -> Reply<LabelReply> {
        self.call(request, Host::label).await
    }

    async fn discard(&self, request: Request<DiscardRequest>) -> Reply<DiscardReply> {
        self.call(request, Host::discard).await
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Reply<Self::DiffStream> {
        self.stream(request, Host::diff)
    }

    async fn list_dir(&self, request: Request<ListDirRequest>) -> Reply<Self::ListDirStream> {
        self.stream(request, Host::list_dir)
    }

    async fn stat(&self, request: Request<StatRequest>) -> Reply<DirEntry> {
        self.call(request, Host::stat).await
    }

    async fn read_file(&self, request: Request<ReadFileRequest>) -> Reply<Self::ReadFileStream> {
        self.stream(request, Host::read_file)
    }

    async fn gc(&self, request: Request<GcRequest>) -> Reply<Self::GcStream> {
        self.stream(request, Host::gc)
    }

    async fn gc_remote(&self, request: Request<GcRemoteRequest>) -> Reply<Self::GcRemoteStream> {
        self.stream(request, Host::gc_remote)
    }

    async fn gc_why(&self, request: Request<GcWhyRequest>) -> Reply<Self::GcWhyStream> {
        self.stream(request, Host::gc_why)
    }

    async fn fsck(&self, request: Request<FsckRequest>) -> Reply<Self::FsckStream> {
        self.stream(request, Host::fsck)
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Reply<StatsReply> {
        self.call(request, Host::stats).await
    }

    async fn doctor(&self, request: Request<DoctorRequest>) -> Reply<DoctorReply> {
        self.call(request, Host::doctor).await
    }

    async fn create_token(&self, request: Request<CreateTokenRequest>) -> Reply<CreateTokenReply> {
        self.call(request, Host::create_token).await
    }

    async fn list_tokens(&self, request: Request<ListTokensRequest>) -> Reply<ListTokensReply> {
        self.call(request, Host::list_tokens).await
    }

    async fn revoke_token(&self, request: Request<RevokeTokenRequest>) -> Reply<RevokeTokenReply> {
        self.call(request, Host::revoke_token).await
    }
}
