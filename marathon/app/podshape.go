package app

import "regexp"

// fixedScaling is the only kind of scaling that there is.
const fixedScaling = "fixed"

// podVariable is what variables of pods may be called.
var podVariable = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]{0,253}$`)

// maxContainers and maxVolumes bound the containers of a pod, and the volumes of an app or a pod: what is known of those of an instance
// is one document of the store.
const maxContainers, maxVolumes = 100, 100

// podShape fits a pod.
var podShape = object(map[string]*shape{
	"id":          text(),
	"labels":      dictionary(text()),
	"user":        text(),
	"environment": environmentShape(),
	"containers":  list(podContainerShape()).length(1, maxContainers),
	"secrets":     dictionary(object(map[string]*shape{"source": text()}, "source")),
	"volumes":     list(podVolumeShape()).length(0, maxVolumes),
	"networks":    list(networkShape()),
	"scaling": object(map[string]*shape{
		"kind": literal(fixedScaling).or(fixedScaling), "instances": natural().or(defaultInstances),
	}),
	"scheduling": object(map[string]*shape{
		"backoff": object(map[string]*shape{
			"backoff": natural().or(defaultBackoffSeconds), "backoffFactor": number().atLeast(1).or(defaultBackoffFactor),
			"maxLaunchDelay": natural().or(defaultMaxLaunchDelaySeconds),
		}),
		"upgrade": upgradeShape(),
		"placement": object(map[string]*shape{
			"constraints": list(object(map[string]*shape{
				"fieldName": text(), "operator": literal(operatorNames()...), "value": text(),
			}, "fieldName", "operator")),
			"acceptedResourceRoles": list(text().length(1, 0)),
		}),
		"killSelection":       literal(string(YoungestFirst), string(OldestFirst)),
		"unreachableStrategy": unreachableShape(),
	}),
	"executorResources":   executorResourcesShape(),
	"role":                text(),
	"linuxInfo":           object(map[string]*shape{"ipcInfo": ipcShape()}),
	"legacySharedCgroups": boolean(),
	"starling":            starlingShape(),
}, "id", "containers")

func operatorNames() []string {
	var names []string
	for _, o := range []Operator{Unique, Cluster, GroupBy, Like, Unlike, MaxPer, Is} {
		names = append(names, string(o))
	}
	return names
}

func environmentShape() *shape {
	return dictionary(textOr(text(), object(map[string]*shape{"secret": text().length(1, 0)}, "secret")))
}

func ipcShape() *shape {
	return object(map[string]*shape{"mode": literal("PRIVATE", "SHARE_PARENT"), "shmSize": natural()}, "mode")
}

// nameShape fits what containers, endpoints and volumes of pods may be called.
func nameShape() *shape { return text().length(1, 63).matches(portNamePattern) }

func podContainerShape() *shape {
	return object(map[string]*shape{
		"name": nameShape(),
		"exec": object(map[string]*shape{"command": podCommandShape(), "overrideEntrypoint": boolean()}, "command"),
		"resources": object(map[string]*shape{
			"cpus": number().atLeast(0), "mem": number().atLeast(0), "disk": number().atLeast(0).or(0), "gpus": natural().or(0),
		}, "cpus", "mem"),
		"resourceLimits": object(map[string]*shape{"cpus": limit(), "mem": limit()}),
		"endpoints": list(object(map[string]*shape{
			"name": nameShape(), "containerPort": port(), "hostPort": port(),
			"protocol": list(literal("tcp", "udp", "udp,tcp")), "labels": dictionary(text()), "networkNames": list(text()),
		}, "name")),
		"image": object(map[string]*shape{
			"kind": literal("DOCKER"), "id": text().length(1, 1024), "forcePull": boolean(),
			"pullConfig": object(map[string]*shape{"secret": text().length(1, 0)}, "secret"), "labels": dictionary(text()),
		}, "kind", "id"),
		"environment": environmentShape(),
		"labels":      dictionary(text()),
		"user":        text(),
		"healthCheck": podCheckShape(true),
		"check":       podCheckShape(false),
		"volumeMounts": list(object(map[string]*shape{
			"name": nameShape(), "mountPath": text().length(1, 1024), "readOnly": boolean(),
		}, "name", "mountPath")),
		"artifacts": list(fetchShape()),
		"lifecycle": object(map[string]*shape{"killGracePeriodSeconds": number().atLeast(0)}),
		"linuxInfo": object(map[string]*shape{
			"seccomp": object(map[string]*shape{"profileName": text(), "unconfined": boolean().or(false)}), "ipcInfo": ipcShape(),
		}),
		"tty": boolean(),
	}, "name", "resources")
}

func podCommandShape() *shape {
	return object(map[string]*shape{"shell": text().length(1, 0), "argv": list(text()).length(1, 0)})
}

// podCheckShape fits a check or, with what makes one of it, a health check.
func podCheckShape(health bool) *shape {
	fields := map[string]*shape{
		"http": object(map[string]*shape{
			"endpoint": nameShape(), "path": text().length(1, 1024), "scheme": literal("HTTP", "HTTPS").or("HTTP"),
		}, "endpoint"),
		"tcp":             object(map[string]*shape{"endpoint": nameShape()}, "endpoint"),
		"exec":            object(map[string]*shape{"command": podCommandShape()}, "command"),
		"intervalSeconds": natural().or(60),
		"timeoutSeconds":  natural().or(20),
		"delaySeconds":    natural().or(15),
	}
	if health {
		fields["gracePeriodSeconds"] = natural().or(300)
		fields["maxConsecutiveFailures"] = natural().or(3)
	}
	return object(fields)
}

func podVolumeShape() *shape {
	return object(map[string]*shape{
		"name": nameShape(), "host": text().length(1, 1024), "secret": text().length(1, 0), "persistent": persistentShape(),
	}, "name")
}
