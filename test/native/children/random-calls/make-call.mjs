/** Prepares a call of a function. `keep` is the kind of the returned object if later calls may use the object. */
export function functionCall(args, values, run, keep) {
  return { shown: values, run: () => run(...values), keep: keep && ((result) => args.objects.add(keep, result)) };
}

/** Prepares calls of a random object's methods. `values` returns right arguments. Wrong values replace some of them. */
export function methodCalls(args, kind) {
  return (name, values, keep) => () => {
    const owner = args.objects.pick(kind);
    if (owner === undefined) return { shown: `there are no ${kind}`, run: () => {} };
    const given = values().map((value) => args.mostly(() => value));
    return functionCall(args, given, (...all) => owner[name](...all), keep);
  };
}
