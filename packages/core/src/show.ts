/** A value as an error names it: short, and without calling anything of the caller's. */
export function show(value: unknown): string {
  switch (typeof value) {
    case "string":
      return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
    case "bigint":
      return "a bigint";
    case "function":
      return "a function";
    case "object":
      return value === null ? "null" : kindOf(value);
    default:
      return String(value);
  }
}

function kindOf(value: object): string {
  try {
    if (Array.isArray(value)) return "an array";
    const kind = Object.prototype.toString.call(value).slice("[object ".length, -1);
    if (kind === "Date") return Number.isNaN(Number(value)) ? "an invalid date" : "a date";
    if (kind === "Promise") return "a promise (await it)";
  } catch {
    // A revoked proxy, or a getter that throws.
  }
  return "an object";
}
