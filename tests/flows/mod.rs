mod command_line;
mod first_path;
mod official_sdk;
mod published;
mod removal;
mod standalone;
