package task

import "slices"

// Reason says why an offer was not used. Its text is that of Marathon's queue.
type Reason string

// The reasons, in the order in which an offer passes through them.
const (
	UnfulfilledRole                 Reason = "UnfulfilledRole"
	UnfulfilledConstraint           Reason = "UnfulfilledConstraint"
	NoCorrespondingReservationFound Reason = "NoCorrespondingReservationFound"
	AgentMaintenance                Reason = "AgentMaintenance"
	InsufficientCpus                Reason = "InsufficientCpus"
	InsufficientMemory              Reason = "InsufficientMemory"
	InsufficientDisk                Reason = "InsufficientDisk"
	InsufficientGpus                Reason = "InsufficientGpus"
	InsufficientPorts               Reason = "InsufficientPorts"
	DeclinedScarceResources         Reason = "DeclinedScarceResources"
	// ExceededMaxLatency is not Marathon's: an app alone that asks for it meets it, behind the constraints.
	ExceededMaxLatency Reason = "ExceededMaxLatency"
)

// Funnel returns all of Marathon's reasons in their order.
func Funnel() []Reason {
	return []Reason{
		UnfulfilledRole, UnfulfilledConstraint, NoCorrespondingReservationFound, AgentMaintenance, InsufficientCpus,
		InsufficientMemory, InsufficientDisk, InsufficientGpus, InsufficientPorts, DeclinedScarceResources,
	}
}

// place is where the reason stands in the order of Funnel.
func (r Reason) place() int { return slices.Index(Funnel(), r) }

// Refusal is one thing that keeps an app from an offer.
type Refusal struct {
	Reason Reason
	// Why is a sentence for the user: what is needed, and what there is.
	Why string
}

// FunnelRow is a line of the queue's summary.
type FunnelRow struct {
	Reason    Reason `json:"reason"`
	Declined  int    `json:"declined"`
	Processed int    `json:"processed"`
}

// Summary counts refused offers: each under the first of its reasons, and a row is reached by what no row before it
// declined. The offers' refusals are as Match returned them.
func Summary(offers [][]Refusal) []FunnelRow {
	declined := make(map[Reason]int)
	for _, refusals := range offers {
		if len(refusals) > 0 {
			declined[refusals[0].Reason]++
		}
	}
	return Rows(declined, len(offers))
}

// Rows are the lines of a summary of that many offers, by how many each reason has declined first. Reasons that are not
// Marathon's have a line only where there is something in it.
func Rows(declined map[Reason]int, processed int) []FunnelRow {
	rows := make([]FunnelRow, 0, len(Funnel())+1)
	add := func(reason Reason) {
		rows = append(rows, FunnelRow{Reason: reason, Declined: declined[reason], Processed: processed})
		processed -= declined[reason]
	}
	for _, reason := range Funnel() {
		add(reason)
		if reason == UnfulfilledConstraint && declined[ExceededMaxLatency] > 0 {
			add(ExceededMaxLatency)
		}
	}
	return rows
}
