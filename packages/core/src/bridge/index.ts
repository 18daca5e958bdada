/**
 * What bridges to frameworks share. For applications there is nothing here.
 *
 * @packageDocumentation
 */
export * from "./native.js";
