from django.urls import path

from orders.views import basket, cases, checkout, documents, guardian, orders, phones, proof, shop, webhooks

app_name = "orders"
urlpatterns = [
    path("", shop.shop, name="shop"),
    path("plans/<slug:slug>/", shop.plan, name="plan"),
    path("currency/", shop.currency, name="currency"),
    path("fees/", shop.fees, name="fees"),
    path("basket/", basket.basket, name="basket"),
    path("basket/add/", basket.add, name="basket-add"),
    path("basket/change/", basket.change, name="basket-change"),
    path("basket/restore/", basket.restore, name="basket-restore"),
    path("checkout/", checkout.checkout, name="checkout"),
    path("checkout/law/", checkout.law, name="checkout-law"),
    path("orders/", orders.orders, name="orders"),
    path("orders/<slug:reference>/", orders.order, name="order"),
    path("orders/<slug:reference>/live/", orders.order_live, name="order-live"),
    path("orders/<slug:reference>/pay/", checkout.pay, name="pay"),
    path("orders/<slug:reference>/pay/live/", checkout.pay_live, name="pay-live"),
    path("orders/<slug:reference>/paid/", checkout.payment_return, name="payment-return"),
    path("orders/<slug:reference>/cancel/", orders.cancel, name="cancel"),
    path("orders/<slug:reference>/evidence.pdf", proof.proof, name="proof"),
    path("orders/<slug:reference>/<slug:number>.pdf", documents.document, name="document"),
    path("orders/<slug:reference>/case/", cases.open_dispute, name="case-open"),
    path("orders/<slug:reference>/withdraw/", cases.withdraw, name="withdraw"),
    path("cases/", cases.cases, name="cases"),
    path("cases/<slug:reference>/", cases.case, name="case"),
    path("cases/<slug:reference>/close/", cases.close, name="case-close"),
    path("orders/<slug:reference>/guardian/", guardian.guardian_ask, name="guardian-ask"),
    path("guardian/<int:request_id>/", guardian.guardian, name="guardian"),
    path("phones/", phones.phones, name="phones"),
    path("webhooks/<slug:gateway>/", webhooks.webhook, name="webhook"),
]
