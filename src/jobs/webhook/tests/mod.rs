//! Letters as a whole: what they say, and how they fare on their way.

mod fakes;
mod http;
mod property;
mod says;
mod ways;
