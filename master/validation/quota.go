package validation

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"starling/master/mesos"
	"starling/master/mesos/quota"
	"starling/master/mesos/resources"
)

// QuotaRole checks the role of a quota.
func QuotaRole(role string) error {
	if err := resources.CheckRole(role); err != nil {
		return err
	}
	if role == resources.AnyRole {
		return errors.New("setting quota for the default '*' role is not supported")
	}
	return nil
}

// QuotaConfig checks a quota by itself, and reads its amounts: guarantees of 0 are left out, limits of 0 are not.
func QuotaConfig(config *quota.QuotaConfig) (guarantees, limits map[string]resources.Milli, err error) {
	if err := QuotaRole(config.GetRole()); err != nil {
		return nil, nil, fmt.Errorf("Invalid 'QuotaConfig.role': %w", err)
	}
	if guarantees, err = quotaAmounts("guarantee", config.GetGuarantees()); err != nil {
		return nil, nil, err
	}
	if limits, err = quotaAmounts("limit", config.GetLimits()); err != nil {
		return nil, nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(guarantees)) {
		if limit, limited := limits[name]; limited && guarantees[name] > limit {
			return nil, nil, fmt.Errorf("'QuotaConfig.guarantees' %s is not contained within the 'QuotaConfig.limits' %s",
				quotaText(guarantees), quotaText(limits))
		}
	}
	maps.DeleteFunc(guarantees, func(_ string, amount resources.Milli) bool { return amount == 0 })
	return guarantees, limits, nil
}

func quotaAmounts(what string, given map[string]*mesos.Value_Scalar) (map[string]resources.Milli, error) {
	amounts := make(map[string]resources.Milli, len(given))
	for _, name := range slices.Sorted(maps.Keys(given)) {
		value := given[name].GetValue()
		amount, err := resources.FromFloat(value)
		switch {
		case name == "":
			err = errors.New("the name of the resource is empty")
		case name == resources.Ports:
			err = errors.New("only scalar resources can have a quota")
		case err == nil && value < 0:
			err = errors.New("values must be non-negative")
		}
		if err != nil {
			return nil, fmt.Errorf("Invalid %s configuration {'%s': %v}: %w", what, name, value, err)
		}
		amounts[name] = amount
	}
	return amounts, nil
}

// quotaText lists amounts as "{cpus:1, mem:32}".
func quotaText(amounts map[string]resources.Milli) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(amounts)) {
		parts = append(parts, name+":"+amounts[name].String())
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// QuotaRequest checks the older form of a quota, and turns it into the newer one, in which the guarantee is also the limit.
func QuotaRequest(request *quota.QuotaRequest) (*quota.QuotaConfig, error) {
	if request.Role == nil {
		return nil, errors.New("QuotaInfo must specify a role")
	}
	if err := QuotaRole(request.GetRole()); err != nil {
		return nil, fmt.Errorf("QuotaInfo with invalid role: %w", err)
	}
	if len(request.GetGuarantee()) == 0 {
		return nil, errors.New("QuotaInfo with empty 'guarantee'")
	}
	amounts := make(map[string]*mesos.Value_Scalar)
	for _, r := range request.GetGuarantee() {
		name := r.GetName()
		switch {
		case len(r.GetReservations()) > 0, r.Reservation != nil, r.GetRole() != resources.AnyRole:
			return nil, errors.New("QuotaInfo must not contain any ReservationInfo")
		case r.Disk != nil:
			return nil, errors.New("QuotaInfo must not contain DiskInfo")
		case r.Revocable != nil:
			return nil, errors.New("QuotaInfo must not contain RevocableInfo")
		case r.Shared != nil:
			return nil, errors.New("QuotaInfo must not contain SharedInfo")
		case r.AllocationInfo != nil:
			return nil, errors.New("QuotaInfo must not contain AllocationInfo")
		case r.GetType() != mesos.Value_SCALAR:
			return nil, errors.New("QuotaInfo must not include non-scalar resources")
		case amounts[name] != nil:
			return nil, fmt.Errorf("QuotaInfo contains duplicate resource name '%s'", name)
		}
		if _, err := resources.FromProto([]*mesos.Resource{r}); err != nil {
			return nil, fmt.Errorf("QuotaInfo with invalid resource: %w", err)
		}
		amounts[name] = r.GetScalar()
	}
	return &quota.QuotaConfig{Role: request.Role, Guarantees: amounts, Limits: maps.Clone(amounts)}, nil
}
