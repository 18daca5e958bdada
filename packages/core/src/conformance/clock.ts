/** Make this process's clock wrong by so many milliseconds. Returns what sets it right. */
export function skewClock(skew: number): () => void {
  const RealDate = Date;
  const now = () => RealDate.now() + skew;
  globalThis.Date = new Proxy(RealDate, {
    construct: (target, args, newTarget) =>
      Reflect.construct(target, args.length === 0 ? [now()] : args, newTarget),
    apply: () => new RealDate(now()).toString(),
    get: (target, property) => (property === "now" ? now : Reflect.get(target, property)),
  });
  return () => {
    globalThis.Date = RealDate;
  };
}
