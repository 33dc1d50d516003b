//! The gate in front of everything that is called over the network: who has no token that is good for it gets no further.

use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use token::{Grant, Right};
use tonic::{
    Status,
    body::Body,
    codegen::http::{HeaderMap, Request, Response, header::AUTHORIZATION},
    transport::server::TlsConnectInfo,
};
use tower::{Layer, Service};

use super::{
    Answer,
    access::Access,
    bounds::quoted,
    issued::Refusal,
    rights::{Need, need},
    tls::Caller,
};

/// What stands before a token in its header.
const SCHEME: &str = "Bearer ";
const WAY_OUT: &str = "whoever may use the daemon's socket makes one with `aetherctl token create`; aetherctl takes it from AETHERFS_TOKEN";

/// Puts the gate in front of services.
#[derive(Clone, Debug)]
pub(super) struct Gate(pub(super) super::Service);

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.clone() }
    }
}

/// Services with the gate in front.
#[derive(Clone, Debug)]
pub(super) struct Gated<S> {
    inner: S,
    gate: Gate,
}

impl<S, B> Service<Request<B>> for Gated<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let caller = request.extensions().get::<TlsConnectInfo<Caller>>().map(TlsConnectInfo::get_ref);
        match self.gate.let_in(request.uri().path(), request.headers(), caller) {
            Ok(access) => {
                request.extensions_mut().insert(access);
                Either::Left(self.inner.call(request))
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

impl Gate {
    /// What the caller may have. Errors: UNAUTHENTICATED, PERMISSION_DENIED.
    fn let_in(&self, path: &str, headers: &HeaderMap, caller: Option<&Caller>) -> Answer<Access> {
        let method = path.rsplit('/').next().unwrap_or_default();
        let need = need(path);
        if need == Some(Need::Nothing) {
            return Ok(Access::stranger());
        }
        // Before it is told what there is.
        let grant = self.grant(headers)?;
        if let Some(caller) = caller {
            caller.recognise();
        }
        match need {
            Some(Need::Of(right)) => allowed(&grant, right, method),
            Some(Need::OfAll(right)) => {
                let access = allowed(&grant, right, method)?;
                if access.is_limited() {
                    let message = format!(
                        "{method} needs a token for all sessions; this one is for {}",
                        sessions(&grant)
                    );
                    return Err(Status::permission_denied(message));
                }
                Ok(access)
            }
            Some(Need::Socket) => {
                let message = format!("{method} is for callers on the daemon's host, through its socket");
                Err(Status::permission_denied(message))
            }
            Some(Need::Nothing) | None => {
                let method = quoted(method.as_bytes());
                Err(Status::permission_denied(format!(
                    "{method} is nothing that can be called over the network"
                )))
            }
        }
    }

    /// What the request's token allows. Error: UNAUTHENTICATED, without any of what was shown.
    fn grant(&self, headers: &HeaderMap) -> Answer<Grant> {
        let mut shown = headers.get_all(AUTHORIZATION).iter();
        let (Some(header), None) = (shown.next(), shown.next()) else {
            return Err(Status::unauthenticated(format!("a token is needed; {WAY_OUT}")));
        };
        let text = header.to_str().ok().and_then(|text| text.strip_prefix(SCHEME));
        let text = text.ok_or_else(|| {
            Status::unauthenticated(format!(
                "the header `authorization` is not `{SCHEME}` and a token; {WAY_OUT}"
            ))
        })?;
        let host = self.0.host();
        match host.tokens.verify(text, host.now_secs())? {
            Ok(token) => Ok(token.grant),
            Err(Refusal::Bad(error)) => Err(Status::unauthenticated(format!("{error}; {WAY_OUT}"))),
            Err(Refusal::Revoked) => {
                Err(Status::unauthenticated(format!("the token was revoked; {WAY_OUT}")))
            }
        }
    }
}

fn allowed(grant: &Grant, right: Right, method: &str) -> Answer<Access> {
    if !grant.rights.contains(&right) {
        return Err(Status::permission_denied(format!(
            "{method} needs a token that allows {right}; this one allows {} of {}",
            grant.rights_text(),
            sessions(grant)
        )));
    }
    Access::of_token(grant, right)
        .ok_or_else(|| Status::unauthenticated("the token names what is no session here"))
}

/// For a message, which many of them would make too long.
fn sessions(grant: &Grant) -> String {
    quoted(grant.sessions_text().as_bytes())
}
