"""What sessions cost: prices, budgets, holds, settlements, and the journal that proves them.

The way in is `ledger.Ledger`; this package knows no provider of browsers.
"""
