mod command_line;
mod first_path;
mod kept_answers;
mod official_sdk;
mod outside;
mod removal;
mod sql_lookup;
mod standalone;
