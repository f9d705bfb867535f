"""The plugins that come with vmfsm. They use its public names only, and are found as anybody's are."""
