mod command_line;
mod first_path;
mod kept_answers;
mod official_sdk;
mod removal;
mod standalone;
