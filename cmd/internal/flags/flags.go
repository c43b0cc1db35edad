// Package flags is the one registry of settings of a role: a flag.FlagSet whose values come, in this order, from the
// command line, the environment, files and the defaults.
//
// Names are compared without regard to case, and "-" equals "_", as people are used to from either world. A name that
// nobody knows is an error that tells the nearest match; a name that Mesos or Marathon knows and this software does not
// honour is accepted with one warning (Unused), so that existing service files keep working. A value whose type has a
// method Secret() bool that says so is not repeated in errors; what its String shows is up to it. A value "file:///path" stands for
// what that file holds (semantics page of the Mesos specification, section 16.1).
package flags

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Source says where the value of a flag came from.
type Source string

// The values of Source, strongest first; an environment's or a file's Source also names it.
const (
	CommandLine Source = "command line"
	Default     Source = "default"
)

// ErrHelp is returned by Parse when help was asked for; the usage text has been written.
var ErrHelp = flag.ErrHelp

// Set is the settings of one role. The zero value is not usable; see New.
type Set struct {
	*flag.FlagSet
	// EnvPrefixes are tried in order: with "STARLING_" the flag work-dir is set by STARLING_WORK_DIR.
	EnvPrefixes []string
	// EnvIgnore are prefixes of variables that look like settings and are not: MARATHON_APP_ is set on every task.
	EnvIgnore []string
	// ConfigDirs are folders with one file a flag; later ones win. Folders that do not exist are passed over.
	ConfigDirs []string

	aliases map[string]string
	folders map[string]bool
	unused  map[string]Unused
	source  map[string]Source
	// Warnings collects what the caller should log once: known names that change nothing.
	Warnings []string
}

// New returns an empty set; the name is that of the command, as it stands in the usage text.
func New(name string, envPrefixes ...string) *Set {
	s := &Set{
		FlagSet: flag.NewFlagSet(name, flag.ContinueOnError), EnvPrefixes: envPrefixes,
		aliases: map[string]string{}, folders: map[string]bool{}, unused: map[string]Unused{}, source: map[string]Source{},
	}
	s.FlagSet.SetOutput(io.Discard)
	return s
}

// Alias makes the old names stand for a flag that is defined.
func (s *Set) Alias(name string, old ...string) {
	for _, o := range old {
		s.aliases[normal(o)] = normal(name)
	}
}

// Folder lets flags be set by a folder of their name in a configuration folder, as well as by a file: each file in it is one
// item, "name:value", and the items are joined by semicolons. Empty files are passed over.
func (s *Set) Folder(names ...string) {
	for _, n := range names {
		s.folders[normal(n)] = true
	}
}

// Unused is a flag of the programs that a role stands in for which is accepted and changes nothing.
type Unused struct {
	Name string
	// Advice says what to do in its place; may be empty.
	Advice string
	// Check refuses values that the flag cannot have; nil takes all.
	Check func(value string) error
	// Usual is the value that says what is done anyway: it needs no warning.
	Usual string
	// Switch is set for one that is true or false, and may stand without a value.
	Switch bool
}

// Unused names flags that are accepted and change nothing; one that is given is told of once, in Warnings.
func (s *Set) Unused(list ...Unused) {
	for _, u := range list {
		s.unused[normal(u.Name)] = u
	}
}

// Ignore is Unused for flags whose names are all that is known of them.
func (s *Set) Ignore(names ...string) {
	for _, n := range names {
		s.Unused(Unused{Name: n})
	}
}

// unusedFlag finds a flag that changes nothing under its name or as a toggle.
func (s *Set) unusedFlag(name string) (u Unused, off, ok bool) {
	if u, ok = s.unused[name]; ok {
		return u, false, true
	}
	for _, prefix := range []string{"no-", "disable-"} {
		if bare, cut := strings.CutPrefix(name, prefix); cut {
			if u, ok = s.unused[s.canonical(bare)]; ok {
				return u, true, true
			}
		}
	}
	return u, false, false
}

// pass checks the value of a flag that changes nothing, and warns of it.
func (s *Set) pass(u Unused, given, value string) error {
	if strings.HasPrefix(value, "file://") {
		// What the file holds changes nothing either.
	} else if u.Switch {
		if _, err := strconv.ParseBool(value); err != nil {
			return fmt.Errorf("bad value %q: neither true nor false", value)
		}
	} else if u.Check != nil {
		if err := u.Check(value); err != nil {
			return fmt.Errorf("bad value %q: %w", value, err)
		}
	}
	if u.Usual != "" && value == u.Usual {
		return nil
	}
	warning := given + " is accepted and changes nothing here"
	if u.Advice != "" {
		warning += ": " + u.Advice
	}
	if !slices.Contains(s.Warnings, warning) {
		s.Warnings = append(s.Warnings, warning)
	}
	return nil
}

func normal(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

// Parse sets the flags. Names left over are returned by Args. All faults are joined into one error.
func (s *Set) Parse(args []string, environ []string) error {
	set, rest, err := s.commandLine(args)
	if errors.Is(err, ErrHelp) {
		return err
	}
	var faults []error
	if err != nil {
		faults = append(faults, err)
	}
	if dirs, ok := set["config-dir"]; ok {
		var list List
		_ = list.Set(dirs) // never fails
		s.ConfigDirs = append(s.ConfigDirs, list...)
	}
	faults = append(faults, s.files()...)
	faults = append(faults, s.environment(environ)...)
	for name, value := range set {
		if err := s.put(name, value, CommandLine); err != nil {
			faults = append(faults, fmt.Errorf("--%s: %w", name, err))
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	// The standard set keeps what is left over, so that Args works as people know it.
	if err := s.FlagSet.Parse(append([]string{"--"}, rest...)); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// Source tells where the value of a flag came from.
func (s *Set) Source(name string) Source {
	if src, ok := s.source[name]; ok {
		return src
	}
	return Default
}

// IsSet tells whether anything but the default gave the flag its value.
func (s *Set) IsSet(name string) bool { _, ok := s.source[name]; return ok }

// commandLine sorts the arguments into flags and the rest. What follows "--" is never a flag.
func (s *Set) commandLine(args []string) (map[string]string, []string, error) {
	set := map[string]string{}
	var rest []string
	var faults []error
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			rest = append(rest, arg)
			continue
		}
		given, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		name := s.canonical(given)
		if name == "help" || name == "h" {
			return nil, nil, ErrHelp
		}
		f := s.Lookup(name)
		if f == nil {
			// Toggles: --no-name as Mesos writes it, --disable_name as Marathon does.
			if bare, off := s.toggledOff(name); off != nil && !hasValue {
				f, name, value, hasValue = off, bare, "false", true
			}
		}
		u, off, isUnused := s.unusedFlag(name)
		switch {
		case f == nil && isUnused:
			if !hasValue && !off && !u.Switch && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
				i++
				value, hasValue = args[i], true
			}
			if u.Switch && !hasValue {
				value = strconv.FormatBool(!off)
			}
			if err := s.pass(u, "--"+given, value); err != nil {
				faults = append(faults, fmt.Errorf("--%s: %w", given, err))
			}
			continue
		case f == nil:
			faults = append(faults, s.unknown(given))
			continue
		case hasValue:
		case isBool(f):
			value = "true"
		case i+1 < len(args):
			i++
			value = args[i]
		default:
			faults = append(faults, fmt.Errorf("--%s needs a value", given))
			continue
		}
		set[name] = value
	}
	return set, rest, errors.Join(faults...)
}

// toggledOff finds the switch that a name turns off; nil where there is none.
func (s *Set) toggledOff(name string) (bare string, off *flag.Flag) {
	for _, prefix := range []string{"no-", "disable-"} {
		cut, ok := strings.CutPrefix(name, prefix)
		if bare = s.canonical(cut); ok {
			if off = s.Lookup(bare); off != nil && isBool(off) {
				return bare, off
			}
		}
	}
	return "", nil
}

// inverse is the value of a switch that is set by the variable of its opposite, which may be empty. What is neither true nor
// false stays, to be refused.
func inverse(value string) string {
	if value == "" {
		return "false"
	}
	if v, err := strconv.ParseBool(value); err == nil {
		return strconv.FormatBool(!v)
	}
	return value
}

func (s *Set) canonical(name string) string {
	name = normal(name)
	if to, ok := s.aliases[name]; ok {
		return to
	}
	return name
}

func (s *Set) unknown(given string) error {
	var names []string
	s.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	best := Nearest(normal(given), names)
	if best == "" {
		return fmt.Errorf("unknown flag --%s; see %s --help", given, s.Name())
	}
	return fmt.Errorf("unknown flag --%s; did you mean --%s?", given, best)
}

// files reads one flag from each file of the configuration folders. A name that begins with "?" is a switch.
func (s *Set) files() []error {
	var faults []error
	for _, dir := range s.ConfigDirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				faults = append(faults, fmt.Errorf("cannot read the configuration folder: %w", err))
			}
			continue
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if strings.HasPrefix(e.Name(), ".") {
				continue
			}
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				if s.folders[normal(e.Name())] {
					if err := s.items(e.Name(), path); err != nil {
						faults = append(faults, err)
					}
				}
				continue
			}
			data, err := os.ReadFile(path)
			if err != nil {
				faults = append(faults, fmt.Errorf("cannot read the configuration file: %w", err))
				continue
			}
			name, value := e.Name(), strings.TrimRight(string(data), "\r\n")
			if toggle, ok := strings.CutPrefix(name, "?"); ok {
				name, value = toggle, "true"
				for _, prefix := range []string{"no-", "disable-"} {
					if off, ok := strings.CutPrefix(normal(name), prefix); ok && s.Lookup(s.canonical(off)) != nil {
						name, value = off, "false"
					}
				}
			}
			if err := s.named(name, value, Source("file "+path)); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", path, err))
			}
		}
	}
	return faults
}

// items sets a flag by a folder with a file for each item of its value.
func (s *Set) items(name, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot read the configuration folder: %w", err)
	}
	var items []string
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return fmt.Errorf("cannot read the configuration file: %w", err)
		}
		if value := strings.TrimSpace(string(data)); value != "" {
			items = append(items, e.Name()+":"+value)
		}
	}
	if len(items) == 0 {
		return nil
	}
	if err := s.named(name, strings.Join(items, ";"), Source("folder "+dir)); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

// environment sets flags by variables. Unknown variables are nobody's fault: other programs share the prefixes.
func (s *Set) environment(environ []string) []error {
	var faults []error
	for i := len(s.EnvPrefixes) - 1; i >= 0; i-- {
		for _, kv := range environ {
			variable, value, _ := strings.Cut(kv, "=")
			name, ok := strings.CutPrefix(variable, s.EnvPrefixes[i])
			if !ok || slices.ContainsFunc(s.EnvIgnore, func(p string) bool { return strings.HasPrefix(variable, p) }) {
				continue
			}
			name = s.canonical(name)
			f := s.Lookup(name)
			if bare, off := s.toggledOff(name); f == nil && off != nil {
				f, name, value = off, bare, inverse(value)
			}
			if f == nil {
				if u, _, ok := s.unusedFlag(name); ok && value != "" {
					if err := s.pass(u, variable, value); err != nil {
						faults = append(faults, fmt.Errorf("%s: %w", variable, err))
					}
				}
				continue
			}
			if isBool(f) {
				switch value {
				case "", "1":
					value = "true"
				case "0":
					value = "false"
				}
			}
			if err := s.put(name, value, Source("environment "+variable)); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", variable, err))
			}
		}
	}
	return faults
}

func (s *Set) named(name, value string, src Source) error {
	canonical := s.canonical(name)
	if s.Lookup(canonical) == nil {
		if u, off, ok := s.unusedFlag(canonical); ok {
			if u.Switch && off {
				value = "false"
			}
			return s.pass(u, fmt.Sprintf("%s (%s)", name, src), value)
		}
		return s.unknown(name)
	}
	return s.put(canonical, value, src)
}

func (s *Set) put(name, value string, src Source) error {
	if path, ok := strings.CutPrefix(value, "file://"); ok && !isPath(s.Lookup(name)) {
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("cannot read the value: %w", err)
		}
		value = strings.TrimRight(string(data), "\r\n")
	}
	if err := s.Set(name, value); err != nil {
		if secret, ok := s.Lookup(name).Value.(interface{ Secret() bool }); ok && secret.Secret() {
			return fmt.Errorf("bad value: %w", err)
		}
		return fmt.Errorf("bad value %q: %w", value, err)
	}
	s.source[name] = src
	return nil
}

// Offer sets a flag that nothing but its default has given a value yet: what a role's own configuration file says.
func (s *Set) Offer(name, value string, from Source) error {
	if s.IsSet(name) {
		return nil
	}
	return s.put(name, value, from)
}

// Effective lists every flag with its value and where that came from, for a running node to show. The values of flags
// whose names speak of secrets are left out.
func (s *Set) Effective() []string {
	var out []string
	s.VisitAll(func(f *flag.Flag) {
		value := f.Value.String()
		if strings.Contains(f.Name, "secret") || strings.Contains(f.Name, "credential") || strings.Contains(f.Name, "password") {
			value = "***"
		}
		out = append(out, fmt.Sprintf("--%s=%s (%s)", f.Name, value, s.Source(f.Name)))
	})
	return out
}

// Usage writes the usage text: each flag with its default.
func (s *Set) Usage(w io.Writer, about string) {
	fmt.Fprintf(w, "usage: %s [flags]\n\n%s\n\nflags:\n", s.Name(), about)
	s.VisitAll(func(f *flag.Flag) {
		what, text := flag.UnquoteUsage(f)
		if what != "" {
			what = " " + strings.ToUpper(what)
		}
		fmt.Fprintf(w, "  --%s%s\n        %s", f.Name, what, text)
		if f.DefValue != "" && f.DefValue != "false" {
			fmt.Fprintf(w, " (default %s)", f.DefValue)
		}
		fmt.Fprintln(w)
	})
	fmt.Fprintf(w, "\nA flag can also be set by the environment (%sWORK_DIR for --work-dir) and by a file named after it in --config-dir.\n",
		s.EnvPrefixes[0])
}

func isBool(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// Nearest returns the name that somebody may have meant who wrote another one; empty where none is near.
func Nearest(given string, names []string) string {
	best, distance := "", min(4, 1+max(1, (len(given)+1)/2))
	for _, name := range names {
		if d := editDistance(given, name); d < distance {
			best, distance = name, d
		}
	}
	return best
}

// editDistance is the number of single-character insertions, deletions and replacements between two short words
// (Levenshtein 1966).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal, row[j] = row[j], min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
