package keyring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func secret(letter string) Secret { return Secret(strings.Repeat(letter, 32)) }

// ring makes one of letters, the first one in use.
func ring(serial uint64, letters string) Ring {
	r := Ring{Serial: serial}
	for _, l := range letters {
		r.Secrets = append(r.Secrets, secret(string(l)))
	}
	return r
}

func letters(r Ring) string {
	s := ""
	for _, k := range r.Secrets {
		s += string(k[:1])
	}
	return s
}

func TestToward(t *testing.T) {
	for _, tt := range []struct {
		name, from, to string
		phase          Phase
		want           string // empty: no step is left
		err            error
	}{
		{"the new one is installed", "a", "b", "", "ab", nil},
		{"then it is used", "ab", "b", Install, "ba", nil},
		{"then the old one is removed", "ba", "b", Use, "b", nil},
		{"then all is done", "b", "b", Remove, "", nil},
		{"an unused one is taken back", "ab", "a", Use, "a", nil},
		{"a used one is taken back in two steps", "ba", "a", Install, "ab", nil},
		{"a third one has to wait", "ab", "c", "", "", ErrUnfinished},
		{"a secret that is too short is none", "a", "", "", "", ErrRing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from, to := ring(7, tt.from), Secret("short")
			if tt.to != "" {
				to = secret(tt.to)
			}
			if got := from.Phase(to); got != tt.phase {
				t.Errorf("phase %q, want %q", got, tt.phase)
			}
			step, ok, err := from.Toward(to)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err == nil && ok != (tt.want != "") || ok && (letters(step) != tt.want || step.Serial != 8) {
				t.Errorf("step %q %d (%v), want %q 8", letters(step), step.Serial, ok, tt.want)
			}
		})
	}
}

// The law that the protocol rests on: nodes whose rings are one step apart understand each other both ways.
func TestOneStepApartTheyUnderstandEachOther(t *testing.T) {
	understands := func(receiver, sender Ring) bool { return receiver.Contains(sender.Primary()) }
	for range 1000 {
		r := ring(0, "a")
		target := secret("b")
		for range 20 {
			if rand.IntN(4) == 0 && len(r.Secrets) == 2 {
				target = r.Secrets[rand.IntN(2)] // somebody changes their mind
			} else if len(r.Secrets) == 1 {
				target = secret(string("abcdefg"[rand.IntN(7)]))
			}
			next, ok, err := r.Toward(target)
			if err != nil {
				t.Fatalf("%s toward %c: %v", letters(r), target[0], err)
			}
			if !ok {
				continue
			}
			if !understands(next, r) || !understands(r, next) {
				t.Fatalf("%s and %s do not understand each other", letters(r), letters(next))
			}
			if err := next.Succeeds(r); err != nil || !next.Beats(r) || r.Beats(next) {
				t.Fatalf("%s does not follow %s: %v", letters(next), letters(r), err)
			}
			r = next
		}
	}
}

// Whatever rings are told in whatever order, all nodes end with the same one.
func TestAllPickTheSame(t *testing.T) {
	all := []Ring{ring(0, "a"), ring(1, "ab"), ring(1, "ac"), ring(2, "ba"), ring(2, "ca"), ring(2, "a"), ring(3, "b"), ring(3, "ab")}
	var want string
	for i := range 200 {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		held := all[0]
		for range 3 {
			for _, r := range all {
				if r.Beats(held) {
					held = r
				}
			}
		}
		if i == 0 {
			want = letters(held)
		} else if got := letters(held); got != want {
			t.Fatalf("one ends with %q, another with %q", want, got)
		}
	}
}

func TestSucceeds(t *testing.T) {
	held := ring(5, "ab")
	for name, r := range map[string]Ring{
		"no secret": {Serial: 6}, "three secrets": ring(6, "abc"), "one twice": ring(6, "aa"), "nothing in common": ring(6, "c"),
		"a serial out of reach": ring(5+maxJump+1, "a"), "a serial beyond all": ring(maxSerial+1, "a"),
		"a short secret": {Serial: 6, Secrets: []Secret{Secret("x")}}, "a huge one": {Serial: 6, Secrets: []Secret{make(Secret, MaxSecret+1)}},
	} {
		if err := r.Succeeds(held); !errors.Is(err, ErrRing) {
			t.Errorf("%s: %v, want %v", name, err, ErrRing)
		} else if strings.Contains(err.Error(), "aaaa") {
			t.Errorf("%s: the error tells the secret: %v", name, err)
		}
	}
	if err := ring(6, "bc").Succeeds(held); err != nil {
		t.Errorf("one with a secret in common: %v", err)
	}
}

func TestFingerprintsAndKeysDiffer(t *testing.T) {
	seen := map[string]bool{}
	for _, l := range "abc" {
		s := secret(string(l))
		for _, k := range [][]byte{[]byte(s.Fingerprint()), s.MeshKey("one"), s.MeshKey("two"), s} {
			if seen[string(k)] {
				t.Errorf("%q is there twice", k)
			}
			seen[string(k)] = true
		}
	}
	if got := len(secret("a").MeshKey("one")); got != 32 {
		t.Errorf("the key of the mesh has %d bytes, want 32", got)
	}
	if got, want := secret("a").Fingerprint(), "65e797121b3f5162"; got != want {
		t.Errorf("fingerprint %s, want %s as ever", got, want)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	var b bytes.Buffer
	s := Secret("canary-canary-canary")
	r := Ring{Secrets: []Secret{s}}
	q := Request{Next: s}
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "secret", s, "ring", r, "request", q)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "secret", s, "ring", r, "request", q)
	for _, v := range []any{s, r, &r, q, []Secret{s}, map[string]Secret{"k": s}} {
		fmt.Fprintf(&b, "%v %+v %#v %s %x %q\n", v, v, v, v, v, v)
		if err := json.NewEncoder(&b).Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	for _, canary := range []string{"canary", "63616e617279", "Y2FuYXJ5", "99 97 110", "0x63, 0x61"} {
		if strings.Contains(b.String(), canary) {
			t.Errorf("printed as %s: %s", canary, b.String())
		}
	}
}

func TestRequests(t *testing.T) {
	challenge := bytes.Repeat([]byte("c"), ChallengeSize)
	sealed := Seal(secret("a"), "one", challenge, Request{Next: secret("b"), Abandon: true})
	for _, r := range []Ring{ring(0, "a"), ring(1, "ab"), ring(2, "ba")} {
		q, err := r.Open("one", sealed)
		if err != nil || !bytes.Equal(q.Next, secret("b")) || !q.Abandon {
			t.Errorf("with %s: %+v, %v", letters(r), q, err)
		}
	}
	got, err := Challenge(sealed)
	if err != nil || !bytes.Equal(got, challenge) {
		t.Errorf("challenge %q, %v", got, err)
	}
	if bytes.Contains(sealed, []byte("bbb")) || bytes.Equal(sealed, Seal(secret("a"), "one", challenge, Request{Next: secret("b"), Abandon: true})) {
		t.Error("the request is not encrypted, or the same twice")
	}
	for name, open := range map[string]func() (Request, error){
		"another secret":  func() (Request, error) { return ring(0, "b").Open("one", sealed) },
		"another cluster": func() (Request, error) { return ring(0, "a").Open("two", sealed) },
		"no secret":       func() (Request, error) { return Ring{}.Open("one", sealed) },
		"nothing":         func() (Request, error) { return ring(0, "a").Open("one", nil) },
		"too much":        func() (Request, error) { return ring(0, "a").Open("one", make([]byte, MaxRequest+1)) },
		"a short secret": func() (Request, error) {
			return ring(0, "a").Open("one", Seal(secret("a"), "one", challenge, Request{Next: Secret("x")}))
		},
	} {
		if q, err := open(); !errors.Is(err, ErrRequest) || q.Next != nil {
			t.Errorf("%s: %v, %v, want %v", name, q, err, ErrRequest)
		}
	}
	for i := range sealed {
		bad := slices.Clone(sealed)
		bad[i] ^= 1
		if _, err := ring(0, "a").Open("one", bad); !errors.Is(err, ErrRequest) {
			t.Errorf("byte %d changed: %v, want %v", i, err, ErrRequest)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(Seal(secret("a"), "one", make([]byte, ChallengeSize), Request{Next: secret("b")}))
	f.Add([]byte{requestVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := ring(0, "x").Open("one", b); err == nil {
			t.Errorf("opened what nobody sealed: %v", q)
		}
	})
}
