//! `/users`, `/settings`, `/userdata`: what people keep. Users are not told apart, as on a server that was not told to.

use super::Call;
use crate::files::DEFAULT_USER;
use crate::reply::{Reply, empty};
use crate::route::decoded;
use http::{Method, StatusCode};

impl Call<'_> {
    /// A name in a path is one part of it, its slashes written `%2F`.
    pub(super) async fn users(&self) -> Reply {
        let files = self.kind.files()?;
        let user = files.user(DEFAULT_USER);
        let Some(user) = user else {
            return Ok(empty(StatusCode::NOT_FOUND));
        };
        let path = self.request.uri().path();
        let bare = path
            .strip_prefix("/api/")
            .or_else(|| path.strip_prefix('/'));
        let parts: Vec<String> = bare.unwrap_or(path).split('/').map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let query = self.request.uri().query();
        let (get, post) = (
            matches!(*self.request.method(), Method::GET | Method::HEAD),
            *self.request.method() == Method::POST,
        );
        let body = || self.request.body().clone();
        match parts.as_slice() {
            ["users"] if get => files.users().await,
            ["users"] if post => files.add_user(body()).await,
            ["settings"] if get => user.settings().await,
            ["settings"] if post => user.change_settings(body()).await,
            ["settings", id] if get => user.setting(id).await,
            ["settings", id] if post => user.change_setting(id, body()).await,
            ["userdata"] if get => user.list(query).await,
            ["v2", "userdata"] if get => user.tree(query).await,
            ["userdata", file] if get => user.get(file, self.request.headers()).await,
            ["userdata", file] if post => user.keep(file, query, body()).await,
            ["userdata", file] if *self.request.method() == Method::DELETE => {
                user.delete(file).await
            }
            ["userdata", file, "move", to] if post => user.rename(file, to, query).await,
            _ => Ok(empty(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }
}
