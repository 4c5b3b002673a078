//! Who keeps something here: `user/default/`, and one folder for each other.

use super::disk::Disk;
use super::reply::{self, Answer, broken, empty};
use super::{Files, draft, failed, names};
use crate::json::{Json, Object, object};
use http::StatusCode;
use rand::RngExt;
use std::fs;
use std::path::PathBuf;
use tabane_api::Content;

/// Who asks where users are not told apart.
pub const DEFAULT_USER: &str = "default";

/// Users by their ids. Not in `user/default`: nobody gets at it as a file.
const USERS: &str = "users.json";

/// How long a text of settings, or of a name, may be, in bytes.
pub(super) const MOST_JSON: usize = 16 << 20;

/// What one user keeps: settings, and files such as workflows.
pub struct User {
    pub(super) files: Files,
    pub(super) folder: PathBuf,
}

// === impl Files ===

impl Files {
    /// What the user of this id keeps; `None`: it cannot be one's id. There may be nothing yet.
    pub fn user(&self, id: &str) -> Option<User> {
        let is_id = !id.is_empty() && !id.contains(['/', '\\', '\0']) && !id.starts_with('.');
        // Such folders are ComfyUI's own.
        let is_own = id.starts_with("__");
        (is_id && !is_own).then(|| User {
            files: self.clone(),
            folder: self.disk.users().join(id),
        })
    }

    /// `GET /users`, where users are not told apart: whether anything is kept yet.
    pub async fn users(&self) -> Answer {
        let is_there = self.blocking(|disk| disk.users().join(DEFAULT_USER).exists());
        let is_there = is_there
            .await
            .map_err(|error| failed("list users", error))?;
        reply::ok(object! {"storage": "server", "migrated": is_there})
    }

    /// `POST /users` with `{"username"}`: a new user, whose id is answered.
    pub async fn add_user(&self, body: Content) -> Answer {
        let body = match read_json(self, body).await? {
            Ok(body) => body,
            Err(reply) => return Ok(reply),
        };
        let Some(name) = body.get("username").and_then(Json::text).map(str::to_owned) else {
            return Ok(broken());
        };
        let added = self.blocking(move |disk| add(disk, &name)).await;
        added.map_err(|error| failed("add a user", error))?
    }
}

fn add(disk: &Disk, name: &str) -> Answer {
    let wrong = |why: &str| {
        let told = object! {"error": why};
        Ok(reply::json(StatusCode::BAD_REQUEST, &told))
    };
    let _one_at_a_time = disk.users.lock();
    let path = disk.users().join(USERS);
    let read = fs::read(&path).ok();
    let mut users = match read.and_then(|bytes| Json::read(&bytes).ok()) {
        Some(Json::Object(users)) => users,
        _ => Object::from_iter([(DEFAULT_USER.to_owned(), DEFAULT_USER.into())]),
    };
    if users.values().any(|known| known.text() == Some(name)) {
        return wrong("Duplicate username.");
    }
    let name = name.trim();
    if name.is_empty() {
        return wrong("username not provided");
    }
    if name.starts_with("__") {
        return wrong("System User prefix not allowed");
    }
    let id = format!("{}_{}", plain(name), uuid());
    users.insert(id.clone(), name.into());
    match draft::write(disk, &path, Json::from(users).to_string().as_bytes()) {
        Ok(()) => reply::ok(id),
        Err(error) => Err(failed("keep a user", error)),
    }
}

/// A name as part of a folder's: other letters than plain ones become one dash.
fn plain(name: &str) -> String {
    let mut plain = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
            plain.push(c);
        } else if !plain.ends_with('\0') {
            plain.push('\0');
        }
    }
    plain.replace('\0', "-")
}

/// Version 4: by chance (RFC 9562, 5.4).
fn uuid() -> String {
    let mut bytes: [u8; 16] = rand::rng().random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = names::hex(&bytes);
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32];
    groups.map(|group| &hex[group]).join("-")
}

/// A body of JSON, or what is answered to one that is none.
pub(super) async fn read_json(
    files: &Files,
    body: Content,
) -> Result<Result<Json, http::Response<tabane_api::Body>>, tabane_api::Refusal> {
    let most = files.most_upload.min(MOST_JSON as u64);
    if body.length() > most {
        return Ok(Err(reply::too_large(most, body.length())));
    }
    let bytes = body.to_bytes(MOST_JSON).await;
    let bytes = bytes.map_err(|error| failed("read a body", error))?;
    Ok(Json::read(&bytes).map_err(|_| broken()))
}

/// What is answered to whom nothing is kept for.
pub(super) fn no_user() -> Answer {
    Ok(empty(StatusCode::FORBIDDEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_id_is_told_from_others() {
        assert_eq!(plain("Ann Lee"), "Ann-Lee");
        assert_eq!(plain("é-ü_9!!"), "---_9-");
        let (one, two) = (uuid(), uuid());
        assert_ne!(one, two);
        assert_eq!((one.len(), &one[14..15]), (36, "4"));
    }
}
