//! The whole way from text to plan, with small kinds and policies of the tests' own.

mod broken;
mod fakes;
mod folders;
mod jobs;
mod mangled;
mod meaning;
mod reload;
