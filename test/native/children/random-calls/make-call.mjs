/** A call of a function. `keep` is the kind of object that it returns, if later calls shall use it. */
export function functionCall(args, values, run, keep) {
  return { shown: values, run: () => run(...values), keep: keep && ((result) => args.objects.add(keep, result)) };
}

/** Makes calls of a method on an object of a kind. `values` returns right arguments; some are replaced. */
export function methodCalls(args, kind) {
  return (name, values, keep) => () => {
    const owner = args.objects.pick(kind);
    if (owner === undefined) return { shown: `there are no ${kind}`, run: () => {} };
    const given = values().map((value) => args.mostly(() => value));
    return functionCall(args, given, (...all) => owner[name](...all), keep);
  };
}
