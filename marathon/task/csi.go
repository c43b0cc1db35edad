package task

import (
	"strconv"

	"starling/marathon/app"
	"starling/master/mesos"
)

func decimal(n int) string { return strconv.Itoa(n) }

// csiSource reads the options of a CSI volume, which validation has looked at.
func csiSource(a *app.App, e *app.ExternalVolume) *mesos.Volume_Source {
	plugin, _ := e.Options["pluginName"].(string)
	given, _ := e.Options["capability"].(map[string]any)
	capability := &mesos.Volume_Source_CSIVolume_VolumeCapability{
		AccessMode: &mesos.Volume_Source_CSIVolume_VolumeCapability_AccessMode{Mode: accessMode(given).Enum()},
	}
	if kind, _ := given["accessType"].(string); kind == "block" {
		capability.AccessType = &mesos.Volume_Source_CSIVolume_VolumeCapability_Block{
			Block: new(mesos.Volume_Source_CSIVolume_VolumeCapability_BlockVolume),
		}
	} else {
		mount := new(mesos.Volume_Source_CSIVolume_VolumeCapability_MountVolume)
		if fs, _ := given["fsType"].(string); fs != "" {
			mount.FsType = new(fs)
		}
		flags, _ := given["mountFlags"].([]any)
		for _, flag := range flags {
			if text, ok := flag.(string); ok {
				mount.MountFlags = append(mount.MountFlags, text)
			}
		}
		capability.AccessType = &mesos.Volume_Source_CSIVolume_VolumeCapability_Mount{Mount: mount}
	}
	provisioning := &mesos.Volume_Source_CSIVolume_StaticProvisioning{
		VolumeId: new(e.Name), VolumeCapability: capability,
		NodeStageSecrets:   csiSecrets(a, e.Options["nodeStageSecret"]),
		NodePublishSecrets: csiSecrets(a, e.Options["nodePublishSecret"]),
	}
	if context, ok := e.Options["volumeContext"].(map[string]any); ok {
		provisioning.VolumeContext = make(map[string]string, len(context))
		for key, value := range context {
			if text, ok := value.(string); ok {
				provisioning.VolumeContext[key] = text
			}
		}
	}
	return &mesos.Volume_Source{
		Type:      mesos.Volume_Source_CSI_VOLUME.Enum(),
		CsiVolume: &mesos.Volume_Source_CSIVolume{PluginName: new(plugin), StaticProvisioning: provisioning},
	}
}

func accessMode(capability map[string]any) mesos.Volume_Source_CSIVolume_VolumeCapability_AccessMode_Mode {
	name, _ := capability["accessMode"].(string)
	return mesos.Volume_Source_CSIVolume_VolumeCapability_AccessMode_Mode(
		mesos.Volume_Source_CSIVolume_VolumeCapability_AccessMode_Mode_value[name])
}

func csiSecrets(a *app.App, given any) map[string]*mesos.Secret {
	names, ok := given.(map[string]any)
	if !ok {
		return nil
	}
	secrets := make(map[string]*mesos.Secret, len(names))
	for key, value := range names {
		if name, ok := value.(string); ok {
			secrets[key] = secretOf(a, name)
		}
	}
	return secrets
}
