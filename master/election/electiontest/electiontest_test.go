package electiontest

import (
	"testing"

	"starling/master/election"
)

func TestFake(t *testing.T) {
	Run(t, func(*testing.T) Election {
		f := new(Fake)
		return Election{
			Join: func(*testing.T) (election.Contender, election.Detector) {
				c := f.Contender()
				return c, c
			},
			Expire: func(_ *testing.T, c election.Contender) { c.(*FakeContender).Expire() },
		}
	})
}
