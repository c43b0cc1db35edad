package app

import "regexp"

var (
	// portNamePattern holds for mappings' names.
	portNamePattern    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	networkNamePattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9_]*[a-z0-9])?$`)
	executorPattern    = regexp.MustCompile(`^((//cmd)|(/?[^/]+(/[^/]+)*)|)$`)
)

// updateShape fits an app of which any field may be absent; appShape one that has an id.
var (
	updateShape = object(appFields())
	appShape    = object(appFields(), "id")
	// taskIDsShape fits a list of task ids.
	taskIDsShape = object(map[string]*shape{"ids": list(text())}, "ids")
	groupShape   = newGroupShape()
)

func appFields() map[string]*shape {
	return map[string]*shape{
		"id":                         text(),
		"cmd":                        text(),
		"args":                       list(text()),
		"user":                       text(),
		"env":                        environmentShape(),
		"instances":                  natural(),
		"cpus":                       number().atLeast(0),
		"mem":                        number().atLeast(0),
		"disk":                       number().atLeast(0),
		"gpus":                       natural(),
		"resourceLimits":             object(map[string]*shape{"cpus": limit(), "mem": limit()}),
		"executor":                   text().matches(executorPattern),
		"executorResources":          executorResourcesShape(),
		"constraints":                list(list(text())),
		"acceptedResourceRoles":      list(text().length(1, 0)),
		"role":                       text(),
		"container":                  containerShape(),
		"networks":                   list(networkShape()),
		"portDefinitions":            list(portDefinitionShape()),
		"requirePorts":               boolean(),
		"fetch":                      list(fetchShape()),
		"dependencies":               list(text()),
		"healthChecks":               list(healthCheckShape()),
		"check":                      checkShape(),
		"readinessChecks":            list(readinessCheckShape()),
		"backoffSeconds":             natural(),
		"backoffFactor":              number().atLeast(1),
		"maxLaunchDelaySeconds":      natural(),
		"taskKillGracePeriodSeconds": natural(),
		"upgradeStrategy":            upgradeShape(),
		"unreachableStrategy":        unreachableShape(),
		"killSelection":              literal(string(YoungestFirst), string(OldestFirst)),
		"labels":                     dictionary(text()),
		"secrets":                    dictionary(object(map[string]*shape{"source": text()}, "source")),
		"starling":                   starlingShape(),
		"residency": object(map[string]*shape{
			"relaunchEscalationTimeoutSeconds": long().atLeast(0).or(3600),
			"taskLostBehavior":                 literal("WAIT_FOREVER", "RELAUNCH_AFTER_TIMEOUT").or("WAIT_FOREVER"),
		}),
		"tty":     boolean(),
		"version": moment(),

		// What older versions called things.
		"uris":  list(text().length(1, 1024)),
		"ports": list(port()),
		"ipAddress": object(map[string]*shape{
			"networkName": text(),
			"labels":      dictionary(text()).or(map[string]any{}),
			"groups":      list(text()),
			"discovery": object(map[string]*shape{"ports": list(object(map[string]*shape{
				"number": port(), "name": text().matches(portNamePattern), "protocol": protocolShape(), "labels": dictionary(text()).or(map[string]any{}),
			}, "number")).or([]any{})}),
		}),
		"storeUrls": list(text()),
	}
}

func limit() *shape { return textOr(literal("unlimited"), number().atLeast(0)) }

func protocolShape() *shape { return literal("tcp", "udp", "udp,tcp", "tcp,udp").or("tcp") }

func executorResourcesShape() *shape {
	return object(map[string]*shape{
		"cpus": number().atLeast(0).or(0.1), "mem": number().atLeast(0).or(32), "disk": number().atLeast(0).or(10),
	})
}

func networkShape() *shape {
	return object(map[string]*shape{
		"mode":   literal(string(HostNetwork), string(BridgeNetwork), string(ContainerNetwork)).or(string(ContainerNetwork)),
		"name":   text(),
		"labels": dictionary(text()),
	})
}

func portDefinitionShape() *shape {
	return object(map[string]*shape{
		"port": port().or(0), "protocol": protocolShape(), "name": text(), "labels": dictionary(text()),
	})
}

func portMappingShape() *shape {
	return object(map[string]*shape{
		"containerPort": port().or(0), "hostPort": port(), "servicePort": port().or(0), "protocol": protocolShape(),
		"name": text().matches(portNamePattern), "labels": dictionary(text()).or(map[string]any{}), "networkNames": list(text()),
	})
}

func fetchShape() *shape {
	return object(map[string]*shape{
		"uri": text().length(1, 1024), "extract": boolean().or(true), "executable": boolean().or(false),
		"cache": boolean().or(false), "destPath": text(),
	}, "uri")
}

func upgradeShape() *shape {
	return object(map[string]*shape{"minimumHealthCapacity": number(), "maximumOverCapacity": number()})
}

func unreachableShape() *shape {
	return textOr(literal("disabled"), object(map[string]*shape{
		"inactiveAfterSeconds": natural().or(0), "expungeAfterSeconds": natural().or(0),
	}))
}

func containerShape() *shape {
	return object(map[string]*shape{
		"type": literal(string(Docker), string(Mesos)).or(string(Docker)),
		"docker": object(map[string]*shape{
			"image":          text(),
			"forcePullImage": boolean().or(false),
			"privileged":     boolean().or(false),
			"parameters": list(object(map[string]*shape{
				"key": text().length(1, 0), "value": text(),
			}, "key", "value")).or([]any{}),
			"pullConfig":   object(map[string]*shape{"secret": text().length(1, 0)}, "secret"),
			"network":      literal("HOST", "BRIDGE", "USER", "NONE"),
			"portMappings": list(portMappingShape()),
			"credential":   object(nil),
		}, "image"),
		"volumes":      list(volumeShape()).length(0, maxVolumes).or([]any{}),
		"portMappings": list(portMappingShape()),
		"linuxInfo": object(map[string]*shape{
			"seccomp": object(map[string]*shape{"profileName": text(), "unconfined": boolean().or(false)}),
			"ipcInfo": ipcShape(),
		}),
	})
}

func volumeShape() *shape {
	return object(map[string]*shape{
		"containerPath": text(),
		"hostPath":      text(),
		"mode":          literal("RO", "RW"),
		"persistent":    persistentShape(),
		"external": object(map[string]*shape{
			"name": text(), "provider": text(), "size": integer(), "options": anyObject().or(map[string]any{}), "shared": boolean().or(false),
		}),
		"secret": text(),
	}, "containerPath")
}

func persistentShape() *shape {
	return object(map[string]*shape{
		"type": literal("root", "path", "mount"), "size": long(), "maxSize": long(), "profileName": text(),
		"constraints": list(list(text())).or([]any{}),
	}, "size")
}

// anyObject fits an object and keeps it as it is.
func anyObject() *shape {
	return &shape{kind: "object", fit: func(_ *shape, v any, p *place, f *faults) any {
		if _, ok := v.(map[string]any); !ok {
			f.add(p, codeObject)
			return nil
		}
		return v
	}}
}

func healthCheckShape() *shape {
	return object(map[string]*shape{
		"protocol": literal(string(HTTP), string(HTTPS), string(TCP), string(Command), string(MesosHTTP), string(MesosHTTPS),
			string(MesosTCP)).or(string(HTTP)),
		"path":                   text(),
		"portIndex":              natural(),
		"port":                   port(),
		"gracePeriodSeconds":     natural().or(300),
		"intervalSeconds":        natural().or(60),
		"timeoutSeconds":         natural().or(20),
		"maxConsecutiveFailures": natural().or(3),
		"delaySeconds":           natural().or(15),
		"ignoreHttp1xx":          boolean().or(false),
		"ipProtocol":             literal("IPv4", "IPv6").or("IPv4"),
		"command":                object(map[string]*shape{"value": text().length(1, 0)}, "value"),
	})
}

func checkShape() *shape {
	return object(map[string]*shape{
		"http": object(map[string]*shape{
			"portIndex": natural(), "port": port(), "path": text(), "scheme": literal("HTTP", "HTTPS").or("HTTP"),
		}),
		"tcp": object(map[string]*shape{"portIndex": natural(), "port": port()}),
		"exec": object(map[string]*shape{
			"command": object(map[string]*shape{"shell": text().length(1, 0), "argv": list(text())}),
		}, "command"),
		"intervalSeconds": natural().or(60),
		"timeoutSeconds":  natural().or(20),
		"delaySeconds":    natural().or(15),
	})
}

func readinessCheckShape() *shape {
	return object(map[string]*shape{
		"name":                    text().length(1, 0).or("readinessCheck"),
		"protocol":                literal("HTTP", "HTTPS").or("HTTP"),
		"path":                    text().or("/"),
		"portName":                text().or("http-api"),
		"intervalSeconds":         natural().or(30),
		"timeoutSeconds":          integer().atLeast(1).or(10),
		"httpStatusCodesForReady": list(integer().between(100, 999)),
		"preserveLastResponse":    boolean().or(false),
	})
}

func newGroupShape() *shape {
	s := object(map[string]*shape{
		"id":           text(),
		"apps":         list(appShape),
		"dependencies": list(text()),
		"scaleBy":      number().atLeast(0),
		"version":      moment(),
		"enforceRole":  boolean(),
	})
	nested := *s
	nested.required = []string{"id"}
	nested.fields["groups"] = list(&nested)
	return s
}
