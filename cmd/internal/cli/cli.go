// Package cli is the commands for people: they ask a running node over HTTP and print what it says. "starling mesh ..." is
// in mesh.go and the files beside it; a sibling gets a file of its own with its table of commands.
//
// A command is a name, what it takes and a function; flags, help, the choice of the node and exit codes are the same for
// all. Everything that came from a node is escaped before it is printed, since whoever writes a record could write control
// sequences into it.
//
// Exit codes: 0 done (also a watch that was ended by Ctrl-C, and help), 1 the node could not be asked or refused,
// 2 the command was not written as it should be. "task exec" has its own, and so have the commands about apps (see app.go).
package cli

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"starling/cmd/internal/flags"
)

// Streams are where a command prints: what was asked for on Out, everything else on Err.
type Streams struct {
	Out, Err io.Writer
	// In is what a command that takes input reads; nil is none. A file that is a terminal is treated as one.
	In io.Reader
}

// The exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// group is the commands that share a first word.
type group struct {
	name, about string
	commands    []command
	// marathon is set where the commands ask a Marathon, and a node only if they say so.
	marathon bool
	// codes says what the exit codes mean, where that is more than usual.
	codes string
}

// command is one of a group.
type command struct {
	name string
	// takes names the arguments, as in "A [B]"; min and max bound their number.
	takes    string
	min, max int
	about    string
	example  string
	// flags registers what only this command has; may be nil.
	flags func(*flags.Set)
	run   func(ctx context.Context, c *call) error
	// node is set for a command of a Marathon that asks a node, too.
	node bool
	// wrong is the exit code for a command that is not written as it should be, where 2 means something else; 0 is 2.
	wrong int
}

// usageError is what a command finds wrong with the way it was written.
type usageError struct{ text string }

// Error is the sentence for the user.
func (e *usageError) Error() string { return e.text }

// exitError ends the program with a code of its own; err is what is said of it, nil for nothing.
type exitError struct {
	code int
	err  error
}

// Error is the sentence for the user.
func (e *exitError) Error() string { return fmt.Sprintf("exit code %d: %v", e.code, e.err) }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// call is one command that is being run.
type call struct {
	args   []string
	io     Streams
	client *client
	print  *printer
	// marathon is there for the commands that ask one.
	marathon *marathon
}

// common are the flags that every command has.
type common struct {
	agent, master, output string
}

func (c *common) register(s *flags.Set, node bool) {
	s.StringVar(&c.output, "output", "table", "the `form` of what is printed, table or json; short -o")
	s.Alias("output", "o")
	if !node {
		return
	}
	s.StringVar(&c.agent, "agent", "", "the `host[:port]` of the node to ask, port 5051 if none is given (default: this machine's agent, else its master, else its DNS node)")
	s.StringVar(&c.master, "master", "", "the same for a master, `host[:port]`, port 5050 if none is given")
}

// run does what the arguments say, and returns the exit code.
func (g *group) run(ctx context.Context, io Streams, args, environ []string) int {
	fail := func(code int, name string, err error) int {
		fmt.Fprintf(io.Err, "starling %s: %s\n", name, said(err))
		return code
	}
	name, rest := cutName(args)
	help := name == "help"
	if help {
		name, rest = cutName(rest)
	}
	index := slices.IndexFunc(g.commands, func(c command) bool { return c.name == name })
	switch {
	case name == "" && (help || wantsHelp(rest)):
		g.usage(io.Out)
		return exitOK
	case name == "":
		g.usage(io.Err)
		return exitUsage
	case index < 0:
		return fail(exitUsage, g.name, g.unknown(name))
	}
	cmd := &g.commands[index]
	name = g.name + " " + cmd.name
	wrong := func(err error) int {
		// Flags have several faults at once, a line each.
		code := fail(exitUsage, name, errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")))
		return cmp.Or(cmd.wrong, code)
	}
	set := flags.New("starling "+name, "STARLING_")
	var common common
	common.register(set, !g.marathon || cmd.node)
	var at marathonFlags
	if g.marathon {
		at.register(set)
	}
	if cmd.flags != nil {
		cmd.flags(set)
	}
	if help {
		rest = []string{"--help"}
	}
	if err := set.Parse(rest, environ); errors.Is(err, flags.ErrHelp) {
		cmd.usage(io.Out, set, g.codes)
		return exitOK
	} else if err != nil {
		if at := slices.IndexFunc(rest, func(arg string) bool { n, err := strconv.Atoi(arg); return err == nil && n < 0 }); at >= 0 && strings.Contains(err.Error(), "unknown flag") {
			err = fmt.Errorf("%s is less than 0", rest[at])
		}
		return wrong(err)
	}
	nodes, err := common.nodes(set)
	var m *marathon
	if g.marathon && err == nil {
		m, err = newMarathon(&at)
	}
	switch n := len(set.Args()); {
	case err != nil:
	case common.output != "table" && common.output != "json":
		err = fmt.Errorf("--output: unknown form %q (table, json)", common.output)
	case n < cmd.min:
		err = fmt.Errorf("expecting %s; see starling %s --help", cmd.takes, name)
	case n > cmd.max:
		err = fmt.Errorf("unexpected argument %q; see starling %s --help", set.Arg(cmd.max), name)
	}
	if err != nil {
		return wrong(err)
	}
	c := &call{args: set.Args(), io: io, client: newClient(nodes), print: &printer{out: io.Out, json: common.output == "json"}, marathon: m}
	defer c.client.close()
	if m != nil {
		defer m.close()
	}
	err = cmd.run(ctx, c)
	if exit, ok := errors.AsType[*exitError](err); ok {
		if exit.err == nil {
			return exit.code
		}
		return fail(exit.code, name, exit.err)
	}
	if errors.Is(err, context.Canceled) {
		return fail(exitFailure, name, errors.New("interrupted"))
	} else if _, usage := errors.AsType[*usageError](err); usage {
		return wrong(fmt.Errorf("%w; see starling %s --help", err, name))
	} else if err != nil {
		return fail(exitFailure, name, err)
	}
	return exitOK
}

// nodes returns the addresses to ask, in order: the flags come before the environment, and each alone before those of this
// machine.
func (c *common) nodes(set *flags.Set) ([]string, error) {
	given := func(name string) bool { return set.Source(name) == flags.CommandLine }
	use := ""
	switch {
	case given("agent") && given("master"):
		return nil, errors.New("--agent and --master both name the node to ask; give one of them")
	case given("agent"), !given("master") && c.agent != "":
		use = "agent"
	case c.master != "":
		use = "master"
	}
	var address string
	var err error
	switch use {
	case "agent":
		address, err = flags.HostPort(c.agent, portAgent)
	case "master":
		address, err = flags.HostPort(c.master, portMaster)
	default:
		return localNodes, nil
	}
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", use, err)
	}
	return []string{address}, nil
}

// cutName takes the command out of the arguments: flags that all commands have may stand before it too. They take a
// value, all but help.
func cutName(args []string) (name string, rest []string) {
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case !strings.HasPrefix(arg, "-"):
			return arg, slices.Concat(args[:i], args[i+1:])
		case !strings.Contains(arg, "=") && !wantsHelp(args[i:i+1]):
			i++
		}
	}
	return "", args
}

func wantsHelp(args []string) bool {
	return slices.ContainsFunc(args, func(a string) bool { return a == "--help" || a == "-help" || a == "-h" || a == "--h" })
}

func (g *group) unknown(name string) error {
	names := []string{"help"}
	for _, c := range g.commands {
		names = append(names, c.name)
	}
	if near := flags.Nearest(name, names); near != "" {
		return fmt.Errorf("unknown command %q; did you mean %s?", name, near)
	}
	return fmt.Errorf("unknown command %q; see starling %s --help", name, g.name)
}

func (g *group) usage(w io.Writer) {
	fmt.Fprintf(w, "%s\n\nusage: starling %s COMMAND [flags]\n\n", g.about, g.name)
	for _, c := range g.commands {
		fmt.Fprintf(w, "  %-22s %s\n", strings.TrimSpace(c.name+" "+c.takes), c.about)
	}
	fmt.Fprintf(w, "\nstarling %s COMMAND --help lists the flags of a command.\n", g.name)
	fmt.Fprintln(w, cmp.Or(g.codes, "Exit codes: 0 done, 1 the node cannot be asked or refuses, 2 the command is wrong."))
}

// said is the text of an error for a terminal. An error may have lines of its own making.
func said(err error) string {
	lines := strings.Split(err.Error(), "\n")
	var joined interface{ Unwrap() []error }
	if _, several := errors.AsType[*marathonRefusal](err); !several && !errors.As(err, &joined) {
		return clean(err.Error())
	}
	for i, line := range lines {
		lines[i] = clean(line)
	}
	return strings.Join(lines, "\n")
}

func (c *command) usage(w io.Writer, set *flags.Set, codes string) {
	fmt.Fprintf(w, "usage: %s [flags]\n\n%s\n\nflags:\n", strings.TrimSpace(set.Name()+" "+c.takes), c.about)
	set.VisitAll(func(f *flag.Flag) {
		what, text := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" {
			text += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(w, "  %s\n        %s\n", strings.TrimSpace("--"+f.Name+" "+strings.ToUpper(what)), text)
	})
	fmt.Fprintf(w, "\nFlags can also be set by the environment (STARLING_AGENT for --agent).\n\nexample:\n  %s\n", c.example)
	if codes != "" {
		fmt.Fprintf(w, "\n%s\n", codes)
	}
}
