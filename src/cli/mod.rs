//! The command line: subcommands, flags and exit codes.
