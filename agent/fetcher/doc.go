// Package fetcher brings the URIs of a command into its sandbox before the container starts, as spec/mesos-semantics.md 12
// says.
//
// The agent's side (Fetcher) decides what is to be done; the doing is a child process, "starling fetch" (Main), one for each
// launch and one for each download into the cache. A child opens the sandbox, confines itself to it with Landlock where the
// kernel has that, becomes the task's user for good, and only then looks at anything that others made: so a file is read
// only if that user may read it, an archive can harm only what is his, and what it costs ends with the child. It gets its
// orders as JSON on its standard input, which stays open: when that ends, because the agent did, so does the child. Its
// answer is JSON on its standard output.
//
//	<cache dir>/<agent id>/<sha256 of user and URI>     one whole file of the cache
//	<cache dir>/<agent id>/filling-*                    one that is being downloaded; removed at a start
//
// The cache belongs to the agent and no user can reach into it: children write to and read from files that the agent has
// opened for them. What one user has downloaded is never given to another.
//
// Errors are sentences that name the URI; credentials in it are shown as ***.
package fetcher
