//! Which request about files is answered by what.

use super::Files;
use super::reply::{Answer, cached};
use super::upload::Upload;
use super::users::no_user;
use crate::validate::Dialect;
use http::{Method, Request};
use percent_encoding::percent_decode_str;
use tabane_api::Content;

// === impl Files ===

impl Files {
    /// Answers a request for files, of a user (`default`, where they are not told apart), in the words of a server of this
    /// time. `None`: it is about something else, or nothing is served by this method there.
    ///
    /// Everything is there twice, bare and under `/api`, but for what is `/internal`.
    pub async fn answer(
        &self,
        request: Request<Content>,
        user: &str,
        dialect: Dialect,
    ) -> Option<Answer> {
        let (head, body) = request.into_parts();
        let (path, query) = (head.uri.path(), head.uri.query());
        let bare = path.strip_prefix("/api/").or(path.strip_prefix('/'))?;
        // A name is one part, whatever it decodes to.
        let parts: Vec<&str> = bare.split('/').collect();
        // `HEAD` is answered as `GET` is.
        let method = match head.method {
            Method::HEAD => Method::GET,
            method => method,
        };
        let headers = &head.headers;
        let answer = match (method.as_str(), parts.as_slice()) {
            ("GET", ["view"]) => self.view(query, headers).await,
            ("POST", ["upload", "image"]) => self.upload(Upload::File, headers, body).await,
            ("POST", ["upload", "mask"]) => self.upload(Upload::Mask, headers, body).await,
            ("GET", ["internal", "files", folder]) if !path.starts_with("/api/") => {
                self.list(&decoded(folder), dialect).await
            }
            ("GET", ["users"]) => self.users().await,
            ("POST", ["users"]) => self.add_user(body).await,
            (method, parts) => {
                let Some(user) = self.user(user) else {
                    let is_a_users = ["settings", "userdata", "v2"].contains(parts.first()?);
                    return is_a_users.then(no_user);
                };
                match (method, parts) {
                    ("GET", ["settings"]) => user.settings().await,
                    ("POST", ["settings"]) => user.change_settings(body).await,
                    ("GET", ["settings", id]) => user.setting(&decoded(id)).await,
                    ("POST", ["settings", id]) => user.change_setting(&decoded(id), body).await,
                    ("GET", ["userdata"]) => user.list(query).await,
                    ("GET", ["v2", "userdata"]) => user.tree(query).await,
                    (_, ["userdata", ""]) => return None,
                    ("GET", ["userdata", file]) => user.get(file, headers).await,
                    ("POST", ["userdata", file]) => user.keep(file, query, body).await,
                    ("DELETE", ["userdata", file]) => user.delete(file).await,
                    ("POST", ["userdata", file, "move", to])
                        if !file.is_empty() && !to.is_empty() =>
                    {
                        user.rename(file, to, query).await
                    }
                    _ => return None,
                }
            }
        };
        Some(answer.map(|reply| cached(&decoded(path), reply)))
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}
