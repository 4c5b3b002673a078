//! The kind `comfyui`: many ComfyUI servers behind the address of one.
//!
//! A virtualiser of prompts more than a balancer: the gateway takes a prompt in as a job of its own, owns the queue, the
//! history, what is uploaded and what is made, and ends its clients' sockets. A node executes what it is handed, and is
//! followed on one event socket.
//!
//! - [`Comfyui`]: the kind, and [`Config`], its block in the file.
//! - `answers`: what the gateway answers itself; `origin`: which pages it answers. `socket`, [`clients`]: who is connected. `files`: what is kept as files.
//! - `ledger`: the prompts that wait, run and were; `stored`, `entry`: as they are kept; `shown`: as they are shown. `open`: taken
//!   up after a restart.
//! - `farm`: what is known of the nodes; `attend`: how it comes to be known; `probe`: whether they are well; `line`: the event
//!   socket of one; `strays`: what one is at though nobody follows it.
//! - `run`: one prompt on one node, with its `inputs` and `outputs`; `ending`: what is said when it is over.
//!
//! Below, without IO and clock:
//! - [`submission`]: the body of `POST /prompt`, its secrets set apart.
//! - [`workflow`]: the graph in it, and its shape; [`signature`]: which parts of it a node has computed before; `facts`: what
//!   the schedule sees of it.
//! - [`object_info`]: what nodes can do, and all of them together; [`names`]: what a node calls a file;
//!   [`translate`]: a prompt in those words.
//! - [`needs`]: what a workflow needs of a node, and what a node lacks of it.
//! - [`validate`]: what is wrong with a prompt, in ComfyUI's own words.
//! - [`frames`]: what nodes say on their sockets; [`clients`]: the sockets of clients, and who is told what.

mod answers;
mod attend;
mod clock;
mod config;
mod ending;
mod entry;
mod facts;
mod farm;
mod inputs;
mod kind;
mod ledger;
mod line;
mod logs;
mod lookup;
mod open;
mod origin;
mod outputs;
mod probe;
mod reply;
mod route;
mod run;
mod shown;
mod socket;
mod stored;
mod strays;
mod version;

pub use config::Config;
pub use kind::Comfyui;

pub mod clients;
pub mod files;
pub mod frames;
pub mod json;
pub mod names;
pub mod needs;
pub mod object_info;
pub mod python;
pub mod signature;
pub mod submission;
pub mod translate;
pub mod validate;
pub mod workflow;
