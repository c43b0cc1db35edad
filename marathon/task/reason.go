package task

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
)

// Funnel returns all reasons in their order.
func Funnel() []Reason {
	return []Reason{
		UnfulfilledRole, UnfulfilledConstraint, NoCorrespondingReservationFound, AgentMaintenance, InsufficientCpus,
		InsufficientMemory, InsufficientDisk, InsufficientGpus, InsufficientPorts, DeclinedScarceResources,
	}
}

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
	left := len(offers)
	reasons := Funnel()
	rows := make([]FunnelRow, len(reasons))
	for i, reason := range reasons {
		rows[i] = FunnelRow{Reason: reason, Declined: declined[reason], Processed: left}
		left -= declined[reason]
	}
	return rows
}
