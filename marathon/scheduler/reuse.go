package scheduler

import (
	"slices"

	"starling/marathon/app"
	"starling/marathon/deployment"
)

// reuse makes what still runs of the definitions that a rollback goes back to instances of these: the definitions have new
// versions, and are what those were launched with, so that nothing has to be done but to end what the deployment that is
// undone has started. Instances of equal definitions in between count too: who rolls back wants the definition, not its age.
func (s *Scheduler) reuse(plan *deployment.Plan) {
	for _, change := range plan.Changes {
		sp := s.spec(change.ID)
		def := sp.def
		if def == nil || change.Old == nil {
			continue
		}
		for _, i := range slices.Clone(sp.instances) {
			was := sp.versions[i.Version]
			if i.Goal != GoalRunning || i.Version >= def.VersionInfo.LastConfigChangeAt || was == nil || !sameTask(was, def) {
				continue
			}
			next := *i
			next.Version = def.Version
			s.put(&next)
		}
		sp.trimVersions()
	}
}

// sameTask tells whether a task of one definition is as good as one of the other. The results of health checks are kept by their
// places, so that these have to be the same too.
func sameTask(was, def *app.App) bool {
	return app.SameConfig(was, def) && slices.EqualFunc(was.HealthChecks, def.HealthChecks, func(a, b app.HealthCheck) bool {
		return string(checkJSON(a)) == string(checkJSON(b))
	})
}
