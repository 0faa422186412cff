mod command_line;
mod first_path;
mod official_sdk;
mod removal;
mod standalone;
