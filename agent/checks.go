package agent

// checks is the checking of one task.
type checks struct{}

func (a *Agent) startChecks(*task) {}
func (a *Agent) stopChecks(*task)  {}
