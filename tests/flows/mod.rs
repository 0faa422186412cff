mod command_line;
mod first_path;
mod kept_answers;
mod learning;
mod metrics;
mod official_sdk;
mod removal;
mod standalone;
