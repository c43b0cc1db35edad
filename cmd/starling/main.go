// Command starling is all roles of the cluster manager in one binary: the first word says which. Called under the name of
// a program that it stands in for (mesos-master, mesos-agent, mesos-slave, marathon, mesos-dns) it takes that role.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"starling/agent/containerizer/libct"
	"starling/agent/fetcher"
	"starling/agent/supervisor"
	"starling/cmd/internal/cli"
	"starling/cmd/internal/flags"
	"starling/cmd/internal/node"
)

const about = `Starling runs apps on machines that find each other.

usage: starling COMMAND [flags]

roles:
  dev         an agent, a master, Marathon and DNS in one process, to try it
  agent       joins the mesh, runs tasks, answers DNS
  master      joins the mesh, serves frameworks
  marathon    keeps long-running apps alive, over REST
  dns         only listens to the mesh and answers DNS

commands for apps, that ask Marathon:
  app         what runs; deploying, scaling, restarting it, and why it waits
  deployment  the changes under way: watching them, undoing them

commands that ask a running node:
  mesh        who is in the mesh, what each node has, and what changes
  task        the tasks of all nodes: their output, their files, commands in them
  node        the nodes that run tasks, and taking them out of service

other commands:
  keygen      print a new cluster key
  version     print the version

starling COMMAND --help lists the flags of a command.
`

var commands = []string{"dev", "agent", "master", "marathon", "dns", "app", "deployment", "mesh", "task", "node", "keygen", "version", "help"}

// The exit codes, beside those that Marathon is known for (node.ExitCode). The last two are that program's too, for whoever calls
// this one by its name.
const (
	exitOK            = 0
	exitFailure       = 1
	exitUsage         = 2
	exitMarathonBind  = 111
	exitMarathonUsage = 112
)

// marathonEnvironment is the file of variables that Marathon's packages read.
const marathonEnvironment = "/etc/default/marathon"

// names are the programs that the binary takes the place of: with which command, and with which settings ahead of the user's,
// the folders above all that those programs' packages read, and the file that they read unless another is named.
var names = map[string][]string{
	"mesos-master": {"master", "--config-dir=/etc/mesos,/etc/mesos-master"},
	"mesos-agent":  {"agent", "--config-dir=/etc/mesos,/etc/mesos-slave,/etc/mesos-agent"},
	"mesos-slave":  {"agent", "--config-dir=/etc/mesos,/etc/mesos-slave,/etc/mesos-agent"},
	"marathon":     {"marathon", "--config-dir=/etc/marathon/conf"},
	"mesos-dns":    {"dns", "--config=config.json"},
}

func main() {
	args := os.Args[1:]
	if ahead, ok := names[filepath.Base(os.Args[0])]; ok && !slices.Equal(args, []string{"--version"}) {
		args = slices.Concat(ahead, args)
	}
	if len(args) > 0 && args[0] == "supervisor" {
		os.Exit(supervisor.Main(args[1:]))
	}
	if len(args) > 0 && args[0] == "fetch" {
		os.Exit(fetcher.Main(args[1:]))
	}
	if len(args) > 0 && args[0] == "container" {
		os.Exit(libct.Main(args[1:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := command(ctx, args, filepath.Base(os.Args[0]) == "marathon")
	stop()
	os.Exit(code)
}

func command(ctx context.Context, args []string, asMarathon bool) int {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, about)
		return exitUsage
	}
	people := cli.Streams{Out: os.Stdout, Err: os.Stderr, In: os.Stdin}
	switch args[0] {
	case "app":
		return cli.App(ctx, people, args[1:], os.Environ())
	case "deployment":
		return cli.Deployment(ctx, people, args[1:], os.Environ())
	case "mesh":
		return cli.Mesh(ctx, people, args[1:], os.Environ())
	case "task":
		return cli.Task(ctx, people, args[1:], os.Environ())
	case "node":
		return cli.Node(ctx, people, args[1:], os.Environ())
	}
	io := node.Streams{Out: os.Stdout, Err: os.Stderr}
	var run func(context.Context, node.Streams, []string, []string) error
	switch args[0] {
	case "dev":
		run = node.Dev
	case "agent":
		run = node.Agent
	case "master":
		run = node.Master
	case "marathon":
		run = node.Marathon
	case "dns":
		run = node.DNS
	case "keygen":
		run = node.Keygen
	case "version", "--version", "-v":
		fmt.Println("starling", node.Version())
		return exitOK
	case "help", "--help", "-h":
		fmt.Print(about)
		return exitOK
	default:
		hint := ""
		if near := flags.Nearest(args[0], commands); near != "" {
			hint = "; did you mean " + near + "?"
		}
		fmt.Fprintf(os.Stderr, "starling: unknown command %q%s\n\n%s", args[0], hint, about)
		return exitUsage
	}
	environ, err := os.Environ(), error(nil)
	if asMarathon {
		environ, err = flags.EnvFile(marathonEnvironment, environ)
	}
	if err == nil {
		err = run(ctx, io, args[1:], environ)
	}
	if node.StartsAnew(err) && ctx.Err() == nil {
		err = errors.Join(err, again())
	}
	var usage *node.UsageError
	switch {
	case err == nil, errors.Is(err, flags.ErrHelp):
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "starling %s: %v\n", args[0], err)
		if asMarathon {
			return exitMarathonUsage
		}
		return exitUsage
	default:
		fmt.Fprintf(os.Stderr, "starling %s: %v\n", args[0], err)
		if code := node.ExitCode(err); code != 0 {
			return code
		}
		if asMarathon && errors.Is(err, syscall.EADDRINUSE) {
			return exitMarathonBind
		}
		return exitFailure
	}
}

// again runs this program anew in this very process, so that whoever started it need not know. It returns only if that fails.
func again() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, os.Environ())
}
