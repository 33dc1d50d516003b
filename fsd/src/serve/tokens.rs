//! Tokens: made, listed, revoked. For who is at the socket (`rights`).

use std::collections::BTreeSet;

use proto::v1::{self, TokenRight};
use token::{LIFETIME_SECS, LIFETIME_SECS_MAX, Right, SESSIONS_MAX};
use tonic::Status;

use super::{Answer, Host, bounds::quoted, issued::Entry};
use crate::session::SessionId;

const NS_IN_SEC: u64 = 1_000_000_000;

impl Host {
    pub(super) fn create_token(&self, request: v1::CreateTokenRequest) -> Answer<v1::CreateTokenReply> {
        self.access.check_local("making tokens")?;
        let lifetime_secs = lifetime_secs(request.lifetime_ms)?;
        let rights = request.rights.iter().map(right).collect::<Answer<BTreeSet<_>>>()?;
        if rights.is_empty() {
            return Err(Status::invalid_argument("a token without any right is of no use; name some"));
        }
        if request.sessions.len() > SESSIONS_MAX {
            let message =
                format!("{} sessions: a token names at most {SESSIONS_MAX}", request.sessions.len());
            return Err(Status::invalid_argument(message));
        }
        if rights.contains(&Right::Manage) && !request.sessions.is_empty() {
            let message =
                "manage is about the whole host: a token that allows it cannot be for some sessions alone";
            return Err(Status::invalid_argument(message));
        }
        let sessions =
            request.sessions.iter().map(|text| self.session_to_name(text)).collect::<Answer<_>>()?;
        let created_secs = self.now_secs();
        let expires_secs = created_secs.saturating_add(lifetime_secs);
        let entry = Entry { rights, sessions, created_secs, expires_secs, is_revoked: false };
        let id = self.engine.entropy().session_id().0;
        let (token, id) = self.tokens.create(id, entry.clone(), created_secs)?;
        tracing::info!(id, expires_secs, "a token was made");
        Ok(v1::CreateTokenReply { token, info: Some(token_info(id, &entry)) })
    }

    pub(super) fn list_tokens(&self, _: v1::ListTokensRequest) -> Answer<v1::ListTokensReply> {
        self.access.check_local("listing tokens")?;
        let list = self.tokens.list(self.now_secs())?;
        Ok(v1::ListTokensReply {
            tokens: list.into_iter().map(|(id, entry)| token_info(id, &entry)).collect(),
        })
    }

    pub(super) fn revoke_token(&self, request: v1::RevokeTokenRequest) -> Answer<v1::RevokeTokenReply> {
        self.access.check_local("revoking tokens")?;
        let v1::RevokeTokenRequest { id } = request;
        let revoked = self.tokens.revoke(&id, self.now_secs())?.ok_or_else(|| {
            let id = quoted(id.as_bytes());
            Status::not_found(format!(
                "no token {id} that has not expired; `aetherctl token list` shows what there is"
            ))
        })?;
        tracing::info!(id, "a token was revoked");
        Ok(v1::RevokeTokenReply { token: Some(token_info(id, &revoked)) })
    }

    /// A session that a token is to name: one that is here, or of another host by its whole ID.
    fn session_to_name(&self, text: &str) -> Answer<SessionId> {
        match self.head_elsewhere(text)? {
            Some(head) => Ok(head.session),
            None => Ok(self.session(text)?.id()),
        }
    }
}

fn lifetime_secs(lifetime_ms: u64) -> Answer<u64> {
    match lifetime_ms / 1000 {
        0 if lifetime_ms == 0 => Ok(LIFETIME_SECS),
        0 => Err(Status::invalid_argument("a token lasts a second or more")),
        secs if secs > LIFETIME_SECS_MAX => {
            let days = LIFETIME_SECS_MAX / (24 * 60 * 60);
            Err(Status::invalid_argument(format!("a token lasts at most {days} days")))
        }
        secs => Ok(secs),
    }
}

fn right(number: &i32) -> Answer<Right> {
    match TokenRight::try_from(*number) {
        Ok(TokenRight::Read) => Ok(Right::Read),
        Ok(TokenRight::Write) => Ok(Right::Write),
        Ok(TokenRight::Fork) => Ok(Right::Fork),
        Ok(TokenRight::Manage) => Ok(Right::Manage),
        Ok(TokenRight::Unspecified) | Err(_) => {
            Err(Status::invalid_argument(format!("right {number} is none that this daemon knows")))
        }
    }
}

fn token_info(id: String, entry: &Entry) -> v1::TokenInfo {
    let right = |right: &Right| match right {
        Right::Read => TokenRight::Read,
        Right::Write => TokenRight::Write,
        Right::Fork => TokenRight::Fork,
        Right::Manage => TokenRight::Manage,
    };
    let ns = |secs: u64| secs.saturating_mul(NS_IN_SEC).try_into().unwrap_or(i64::MAX);
    v1::TokenInfo {
        id,
        rights: entry.rights.iter().map(|one| right(one).into()).collect(),
        sessions: entry.sessions.iter().map(ToString::to_string).collect(),
        created_ns: ns(entry.created_secs),
        expires_ns: ns(entry.expires_secs),
        revoked: entry.is_revoked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_token_lasts_has_bounds() {
        assert_eq!(lifetime_secs(0).unwrap(), 86_400);
        assert_eq!(lifetime_secs(1_999).unwrap(), 1);
        assert_eq!(lifetime_secs(30 * 86_400_000).unwrap(), 2_592_000);
        for bad in [1, 999, 30 * 86_400_000 + 1000, u64::MAX] {
            assert_eq!(lifetime_secs(bad).unwrap_err().code(), tonic::Code::InvalidArgument, "{bad}");
        }
    }
}
